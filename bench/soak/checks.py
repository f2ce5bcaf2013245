"""What must hold when all is over: nothing lost, doubled or left behind; asked of the record and the bucket."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, Final

from bench.soak.house import House
from bench.soak.load import Journal
from bench.soak.receiver import Received
from fluxfarm.errors import NotFound
from storage.objects import ObjectStore
from tests.money import LEFT_OPEN, WRONG_BALANCES, WRONG_COSTS
from tests.stubs.server import Stub

DRAIN: Final = 420.0  #: seconds in which open jobs, unswept attempts and webhooks must come to their end
PAUSE: Final = 2.0
SHOWN: Final = 5  #: of each finding
FINAL_STATES: Final = "('SUCCESS', 'FAILED', 'CANCELED')"
READERS: Final = 8

LEFT: Final = {
    "open jobs": "SELECT count(*) FROM jobs WHERE status IN ('QUEUED', 'RUNNING')",
    "attempts to sweep": "SELECT count(*) FROM attempts WHERE NOT swept AND ended_at IS NOT NULL",
    "attempts without an end": "SELECT count(*) FROM attempts WHERE ended_at IS NULL",
    "pictures of calls that died": "SELECT count(*) FROM leftovers",
    "webhooks to send": "SELECT count(*) FROM webhook_deliveries WHERE state = 'pending'",
}
#: each gives rows that must not be there
RULES: Final = {
    "a job with another number of final events than one": f"""
        SELECT uuid FROM jobs JOIN events ON job_uuid = uuid
         WHERE kind = 'status' AND payload->>'status' IN {FINAL_STATES} GROUP BY uuid HAVING count(*) <> 1""",
    "a success without exactly one winner, its last attempt": """
        SELECT uuid FROM jobs WHERE status = 'SUCCESS' AND (
            SELECT string_agg(number::text, ',') FROM attempts WHERE job_uuid = uuid AND status = 'SUCCESS')
            IS DISTINCT FROM attempt::text""",
    "a winner of a job that is no success": """
        SELECT uuid FROM jobs JOIN attempts ON job_uuid = uuid
         WHERE attempts.status = 'SUCCESS' AND jobs.status <> 'SUCCESS'""",
    "a success without the number of pictures that was asked for, all of the winner": """
        SELECT uuid FROM jobs WHERE status = 'SUCCESS' AND (
            SELECT count(*) FILTER (WHERE images.attempt = jobs.attempt) FROM images WHERE job_uuid = uuid)
            <> jsonb_array_length(request->'seeds')""",
    "pictures of a job that is no success, or of a loser": """
        SELECT uuid FROM jobs JOIN images ON job_uuid = uuid
         WHERE jobs.status <> 'SUCCESS' OR images.attempt <> jobs.attempt""",
    "one Idempotency-Key in flight for ever": "SELECT key FROM idempotency_keys WHERE status_code IS NULL",
    "one job under two Idempotency-Keys": """
        SELECT job_uuid FROM idempotency_keys WHERE job_uuid IS NOT NULL GROUP BY job_uuid HAVING count(*) > 1""",
    "a success without exactly one charge": """
        SELECT uuid FROM jobs LEFT JOIN ledger_entries ON job_uuid = uuid AND kind = 'settle'
         WHERE status = 'SUCCESS' GROUP BY uuid HAVING count(ledger_entries.id) <> 1""",
    "a local job that was charged and is no success": """
        SELECT uuid FROM jobs JOIN ledger_entries ON job_uuid = uuid AND kind = 'settle'
         WHERE status <> 'SUCCESS' AND ledger_entries.provider = 'local'""",
    "a balance that is not the sum of its entries": str(WRONG_BALANCES),
    "a job that is over and holds a reservation": str(LEFT_OPEN),
    "a job whose cost is not what was settled": str(WRONG_COSTS),
    "a job with a webhook without exactly one message": """
        SELECT uuid FROM jobs LEFT JOIN webhook_deliveries ON job_uuid = uuid
         WHERE webhook_id IS NOT NULL GROUP BY uuid HAVING count(id) <> 1""",
    "a campaign without exactly one message of its end": """
        SELECT name FROM campaigns LEFT JOIN webhook_deliveries ON campaign_id = campaigns.id
         WHERE webhook_id IS NOT NULL GROUP BY name HAVING count(webhook_deliveries.id) <> 1""",
    "a webhook that was given up": "SELECT id FROM webhook_deliveries WHERE state = 'failed'",
}
KNOWN_KEYS: Final = """
    SELECT object_key FROM reference_images
    UNION SELECT jsonb_array_elements(request->'references')->>'key' FROM jobs
     WHERE jsonb_typeof(request->'references'->0) = 'object'
    UNION SELECT jsonb_array_elements_text(request->'references') FROM jobs
     WHERE jsonb_typeof(request->'references'->0) = 'string'
"""


@dataclass
class Findings:
    """Counts for the report, and every broken promise in words."""

    broken: list[str] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)  #: of acknowledged jobs
    failures: Counter[str] = field(default_factory=Counter)  #: error codes of FAILED ones
    left: dict[str, int] = field(default_factory=dict)  #: what did not come to its end in the drain
    drained: float = 0.0  #: seconds
    attempts: int = 0
    extra_attempts: int = 0
    objects: int = 0
    bytes: int = 0
    messages: int = 0
    charges: int = 0
    finished: list[float] = field(default_factory=list)

    def note(self, what: str, found: Iterable[Any]) -> None:
        """A broken promise, when there is any."""
        rows = list(found)
        if rows:
            shown = ", ".join(str(one[0] if isinstance(one, tuple) else one) for one in rows[:SHOWN])
            self.broken.append(f"{what}: {len(rows)} ({shown})")


def drain(house: House, findings: Findings) -> None:
    """Wait until everything that was begun has ended, and what calls left behind that died is gone."""
    house.sql("UPDATE leftovers SET since = now() - interval '1 hour'")  # as if the calls had begun two hours ago
    began = time.monotonic()
    while True:
        findings.left = {name: count for name, question in LEFT.items() if (count := int(house.sql(question)[0][0]))}
        findings.drained = time.monotonic() - began
        if not findings.left or findings.drained > DRAIN:
            break
        time.sleep(PAUSE)
    findings.note("not at its end after the drain", (f"{count} {name}" for name, count in findings.left.items()))


def check_jobs(house: House, journal: Journal, findings: Findings) -> None:
    """Each acknowledged job is there and ended as it should; no other job is."""
    rows = house.sql("SELECT uuid::text, status, campaign, error->>'code', extract(epoch FROM finished_at) FROM jobs")
    by_uuid = {row[0]: row for row in rows}
    own = set(journal.accepted.values())
    findings.note("one uuid for two keys", [] if len(own) == len(journal.accepted) else ["see the journal"])
    findings.note("two jobs for one key", journal.doubled)
    findings.note("acknowledged and lost", own - by_uuid.keys())
    findings.note("nobody was promised it", (uuid for uuid, row in by_uuid.items() if not row[2] and uuid not in own))
    per_campaign = Counter(row[2] for row in rows if row[2])
    findings.note(
        "a campaign with other jobs than were promised", set(per_campaign.items()) ^ set(journal.campaigns.items())
    )
    findings.finished = sorted(float(row[4]) for row in rows if row[4] is not None)
    for uuid, row in by_uuid.items():
        findings.states[row[1]] += 1
        if row[1] == "FAILED":
            findings.failures[row[3]] += 1
        told = journal.canceled.get(uuid)
        if (row[1] == "CANCELED") != bool(told) and row[1] in {"CANCELED", "SUCCESS"}:
            findings.note("not what its cancel was answered", [f"{uuid} {row[1]}, told {told}"])
    findings.note(
        "FAILED, and no remote call whose outcome nobody knows",
        (f"{uuid} {row[3]}" for uuid, row in by_uuid.items() if row[1] == "FAILED" and row[3] != "outcome_unknown"),
    )
    pictures = dict(house.sql("SELECT job_uuid::text, count(*) FROM images GROUP BY job_uuid"))
    findings.note(
        "a success with another number of pictures than its caller wanted",
        (
            uuid
            for uuid, count in journal.images.items()
            if uuid in by_uuid and by_uuid[uuid][1] == "SUCCESS" and pictures.get(uuid) != count
        ),
    )
    for what, question in RULES.items():
        findings.note(what, house.sql(question))
    findings.attempts, findings.charges = (
        int(house.sql(question)[0][0])
        for question in ("SELECT count(*) FROM attempts", "SELECT count(*) FROM ledger_entries WHERE kind = 'settle'")
    )
    findings.extra_attempts = int(house.sql("SELECT count(*) FROM attempts WHERE number > 1")[0][0])


def check_objects(house: House, store: ObjectStore, findings: Findings) -> None:
    """Each picture can be read and is what its worker made; nothing else lies in the bucket."""
    wanted: dict[str, str] = dict(house.sql("SELECT object_key, sha256 FROM images"))
    there = set(store.keys("t/"))
    known = {row[0] for row in house.sql(KNOWN_KEYS)}
    findings.note("pictures that are not in the bucket", wanted.keys() - there)
    findings.note("references that are not in the bucket", known - there)
    findings.note("objects that belong to nobody", there - wanted.keys() - known)

    def is_wrong(key: str) -> bool:
        try:
            body = store.get(key)
        except NotFound:
            return False  # told above
        findings.bytes += len(body)
        return hashlib.sha256(body).hexdigest() != wanted[key]

    with ThreadPoolExecutor(READERS) as pool:
        verdicts = pool.map(is_wrong, wanted)
    findings.note("pictures that are not what was made", compress(wanted, verdicts))
    findings.objects = len(wanted)


def check_webhooks(house: House, received: Received, findings: Findings) -> None:
    """Each end was told at least once, in the same words each time, and truly."""
    rows = house.sql(
        """SELECT id, webhook_deliveries.type, job_uuid::text, status FROM webhook_deliveries
             LEFT JOIN jobs ON uuid = job_uuid"""
    )
    findings.messages = len(rows)
    findings.note("a message that never arrived", (row[0] for row in rows if row[0] not in received.told))
    findings.note(
        "a message in other words the second time", (id_ for id_, bodies in received.bodies.items() if len(bodies) > 1)
    )
    findings.note("a message that the farm does not know", received.told.keys() - {row[0] for row in rows})
    told = {row[0]: received.told.get(row[0], {}).get("data", {}) for row in rows if row[2] is not None}
    findings.note(
        "a message that is not true",
        (
            row[0]
            for row in rows
            if row[2] is not None
            and told[row[0]]
            and (told[row[0]]["uuid"], told[row[0]]["status"]) != (row[2], row[3])
        ),
    )
    findings.note("a signature that does not hold", ["see the receiver"] if received.forged else [])


def check_provider(house: House, stub: Stub, findings: Findings) -> None:
    """No job was submitted to a provider twice, and what it took is what was charged."""
    submits = Counter(str(job.body["prompt"]) for job in stub.jobs.values())
    findings.note("paid for twice at the provider", (prompt for prompt, count in submits.items() if count > 1))
    charged = house.sql("SELECT count(*) FROM ledger_entries WHERE kind = 'settle' AND provider = 'fal'")[0][0]
    lost = house.sql("SELECT count(*) FROM jobs WHERE error->>'code' = 'outcome_unknown'")[0][0]
    if not len(stub.jobs) <= charged <= len(stub.jobs) + lost:
        findings.note(
            "paid calls that were not charged", [f"{len(stub.jobs)} taken, {charged} charged, {lost} unknown"]
        )
