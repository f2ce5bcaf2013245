"""The checks at the end of a soak: they are content with a farm that kept its promises, and with no other."""

from __future__ import annotations

from decimal import Decimal
from hashlib import sha256
from typing import Any

import pytest
from sqlalchemy import text

from bench.soak.checks import RULES, Findings, check_jobs, check_objects, check_webhooks
from bench.soak.faults import Fault
from bench.soak.figures import longest_pause, recoveries, running_again
from bench.soak.house import House
from bench.soak.load import Journal
from bench.soak.receiver import Received
from fluxfarm.settings import Settings
from storage.database import Database
from storage.objects import make_store, object_key
from storage.records import Job, Tenant
from storage.repository import attempts
from tests.making import make_job, must_claim

BODY = b"a picture"
SETTLED = """
    INSERT INTO ledger_entries (tenant_id, campaign, job_uuid, kind, amount, provider)
    SELECT tenant_id, '', uuid, '{kind}', 1, 'local' FROM jobs"""
KEY = """
    INSERT INTO idempotency_keys (tenant_id, key, digest, holder, job_uuid, status_code, expires_at)
    SELECT tenant_id, '{key}', '', uuid, uuid, {status}, now() + interval '1 day' FROM jobs"""


class Quiet(House):
    """Asks the database of the tests."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def sql(self, statement: str, *_values: object) -> list[tuple[Any, ...]]:
        with self._database.engine.begin() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(statement).all()]


@pytest.fixture
def done(database: Database, tenant: Tenant) -> Job:
    """A job that was drawn and charged."""
    job = make_job(database, tenant)
    claimed = must_claim(database, job.uuid)
    image = {
        "n": 0,
        "object_key": object_key(tenant.id, job.uuid, 1, 0, "webp"),
        "seed": 7,
        "width": 64,
        "height": 64,
        "content_type": "image/webp",
        "size_bytes": len(BODY),
        "sha256": sha256(BODY).hexdigest(),
    }
    outcome = attempts.Outcome(images=[image], timings={}, model_revision="test", cost=Decimal(1))
    with database.transaction() as session:
        assert attempts.finish(session, claimed, outcome)
    return job


def promised(job: Job) -> Journal:
    return Journal(accepted={"key": str(job.uuid)}, images={str(job.uuid): 1})


def checked(database: Database, journal: Journal) -> list[str]:
    findings = Findings()
    check_jobs(Quiet(database), journal, findings)
    return [one.partition(":")[0] for one in findings.broken]


@pytest.mark.parametrize(
    ("rule", "tampering"),
    [
        (
            "a job with another number of final events than one",
            """INSERT INTO events (job_uuid, kind, payload) SELECT uuid, 'status', '{"status": "SUCCESS"}' FROM jobs""",
        ),
        ("a success without exactly one winner, its last attempt", "UPDATE attempts SET status = 'FAILED'"),
        ("a winner of a job that is no success", "UPDATE jobs SET status = 'FAILED'"),
        ("a success without the number of pictures that was asked for, all of the winner", "DELETE FROM images"),
        ("pictures of a job that is no success, or of a loser", "UPDATE images SET attempt = 2"),
        ("one Idempotency-Key in flight for ever", KEY.format(key="a", status="NULL")),
        ("one job under two Idempotency-Keys", f"{KEY.format(key='a', status=202)}; {KEY.format(key='b', status=202)}"),
        ("a success without exactly one charge", SETTLED.format(kind="settle")),
        ("a local job that was charged and is no success", "UPDATE jobs SET status = 'CANCELED'"),
        ("a balance that is not the sum of its entries", "UPDATE balances SET spent = spent + 1"),
        ("a job that is over and holds a reservation", SETTLED.format(kind="reserve")),
        ("a job whose cost is not what was settled", "UPDATE jobs SET cost = 3"),
        ("a job with a webhook without exactly one message", "UPDATE jobs SET webhook_id = 'wh_1'"),
        ("acknowledged and lost", "DELETE FROM jobs"),
        ("not what its cancel was answered", "UPDATE jobs SET status = 'CANCELED'"),
        ("FAILED, and no remote call whose outcome nobody knows", "UPDATE jobs SET status = 'FAILED'"),
    ],
)
def test_each_rule_bites(database: Database, done: Job, rule: str, tampering: str) -> None:
    assert checked(database, promised(done)) == []
    with database.engine.begin() as connection:
        connection.exec_driver_sql(tampering)
    assert rule in checked(database, promised(done))


def test_rules_of_webhooks_given_up_and_of_campaigns_are_questions_that_the_database_understands(
    database: Database,
) -> None:
    assert [Quiet(database).sql(question) for question in RULES.values()] == [[]] * len(RULES)


def test_what_was_promised_to_nobody_and_twice_is_found(database: Database, done: Job) -> None:
    assert checked(database, Journal()) == ["nobody was promised it"]
    assert checked(database, Journal(accepted={"a": str(done.uuid), "b": str(done.uuid)})) == ["one uuid for two keys"]
    journal = Journal(accepted={"a": str(done.uuid)}, images={str(done.uuid): 2})
    assert checked(database, journal) == ["a success with another number of pictures than its caller wanted"]
    journal = promised(done)
    journal.campaigns["spring"] = 8
    journal.canceled[str(done.uuid)] = True
    found = checked(database, journal)
    assert found == ["a campaign with other jobs than were promised", "not what its cancel was answered"]


def test_objects_that_are_missing_changed_or_nobodys_are_found(
    database: Database, settings: Settings, done: Job
) -> None:
    store = make_store(settings)
    ((key,),) = Quiet(database).sql("SELECT object_key FROM images")

    def found() -> list[str]:
        findings = Findings()
        check_objects(Quiet(database), store, findings)
        return [one.partition(":")[0] for one in findings.broken]

    assert found() == ["pictures that are not in the bucket"]
    store.put(key, b"another one", "image/webp")
    assert found() == ["pictures that are not what was made"]
    store.delete(key)
    store.put(key, BODY, "image/webp")
    assert found() == []
    store.put(object_key(done.tenant_id, done.uuid, 2, 0, "webp"), BODY, "image/webp")
    assert found() == ["objects that belong to nobody"]
    store.close()


def test_messages_that_are_unknown_changed_or_forged_are_found(database: Database) -> None:
    findings = Findings()
    check_webhooks(Quiet(database), Received(bodies={"msg_1": {"a", "b"}}, told={"msg_1": {}}, forged=1), findings)
    assert [one.partition(":")[0] for one in findings.broken] == [
        "a message in other words the second time",
        "a message that the farm does not know",
        "a signature that does not hold",
    ]


def test_figures(database: Database, tenant: Tenant) -> None:
    faults = [Fault("API killed", "api", 1, 10.0), Fault("S3 silent", "S3", None, 12.0, 20.0)]
    by_kind = {one.kind: one for one in recoveries(faults, [9.0, 11.5, 21.0])}
    assert (by_kind["API killed"].count, by_kind["API killed"].ended) == (1, [1.5])
    assert (by_kind["S3 silent"].ended, by_kind["S3 silent"].repaired) == ([9.0], [1.0])
    assert longest_pause([9.0, 11.5, 21.0], 9.0, 22.0) == 9.5
    job = make_job(database, tenant)
    with database.engine.begin() as connection:
        for number, worker, error, at in ((1, "vm:77", '{"code": "worker_lost"}', 100), (2, "vm:78", None, 140)):
            values = {"job": job.uuid, "number": number, "worker": worker, "error": error, "at": at}
            connection.execute(text(ATTEMPT), values)
    killed = [Fault("local worker killed", "worker", 77, 105.0)]
    assert running_again(Quiet(database), killed) == [35.0]
    assert running_again(Quiet(database), [*killed, Fault("the whole farm killed", "the", None, 120.0)]) == []
    assert running_again(Quiet(database), [Fault("local worker killed", "worker", 79, 105.0)]) == []


ATTEMPT = """
    INSERT INTO attempts (job_uuid, number, provider, worker, status, seeds, effective, ignored, error, started_at)
    VALUES (:job, :number, 'local', :worker, 'FAILED', '{}', '{}', '{}', CAST(:error AS jsonb), to_timestamp(:at))
"""
