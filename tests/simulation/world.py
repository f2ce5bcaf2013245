"""What the farm stands on in a walk: the record, the broker, the objects, a paid provider, a receiver of webhooks.

Every way to change one of them looks at once whether a promise was broken, and raises Violation.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final
from uuid import UUID

from fluxfarm.jobs import TRANSITIONS, JobState
from tests.simulation.rules import Claim, Rules
from tests.simulation.tickets import CANCELED, FAILED, QUEUED, RUNNING, SUCCESS, JobRow

LEASE: Final = 30.0
MAX_ATTEMPTS: Final = 3
WINDOW: Final = 4
BATCH: Final = 3  #: jobs that a local worker renders together
PATIENCE: Final = 10.0  #: seconds, after which a ticket may be lost
SWEEP_AFTER: Final = 4 * LEASE
TENANTS: Final = {UUID(int=1): 1.0, UUID(int=2): 2.0}
OWNERS: Final = tuple(TENANTS)
LOCAL: Final = "local"
REMOTE: Final = "remote"

Key = tuple[int, int, int]  #: job, attempt, image: ``t/{tenant}/{job}/{attempt}/{n}``
Steps = Generator[None, None, None]


class Violation(AssertionError):
    """A promise was broken."""


@dataclass(slots=True)
class Held:
    """What ``workers/leases.py`` keeps of a claim."""

    claim: Claim
    renewed_at: float
    stopped: str | None = None


@dataclass(slots=True)
class Intent:
    """A paid submit that was meant, and what became of it."""

    nonce: int
    remote_id: int | None = None
    refused: bool = False


class Process:
    """Something that takes steps and can be killed or frozen before each of them."""

    __slots__ = ("crew", "cut", "frozen", "held", "in_hand", "name", "number", "queue", "skew", "steps", "unsent")

    def __init__(self, name: str, number: int, queue: str, skew: float) -> None:
        self.name = name
        self.number = number
        self.queue = queue
        self.skew = skew  #: of its own clock, in seconds
        self.steps: Steps
        self.held: Held | None = None
        self.frozen = False
        self.cut = False  #: from the database
        self.crew = [self]  #: those of one batch are threads of one process, and die together
        self.in_hand = 0  #: a ticket that was taken, and no claim yet
        self.unsent = 0  #: jobs that were marked, and their tickets not sent yet

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


class Record(Rules):
    """The twin, with what hangs on its transactions: outbox, erasures, intents, notices.

    These are as the design wants them. ``test_gaps.py`` tells where the farm's erasures and notices are not so yet; the
    intents are rule 5 of the design, ahead of the first remote provider.
    """

    def __init__(self) -> None:
        super().__init__(TENANTS)
        self.outbox: list[tuple[int, JobState]] = []
        self.erasures: dict[int, float] = {}  #: job: when; its prefix is swept until no attempt can write any more
        self.intents: dict[int, Intent] = {}
        self.notices: list[Claim] = []

    def add_status(self, job: JobRow, status: JobState) -> None:
        super().add_status(job, status)
        if status is SUCCESS or status is FAILED or status is CANCELED:
            self.outbox.append((job.id, status))

    def announce_stop(self, id_: int, attempt: int) -> None:
        self.notices.append((id_, attempt))

    def erase(self, now: float, tenant: UUID, id_: int) -> None:
        super().erase(now, tenant, id_)
        self.erasures[id_] = now
        self.intents.pop(id_, None)
        self.outbox = [row for row in self.outbox if row[0] != id_]

    def begin_submit(self, claim: Claim) -> str:
        """The transaction before a paid POST: post, resume, unknown or lost."""
        if self._held(claim) is None:
            return "lost"
        intent = self.intents.get(claim[0])
        if intent is None or intent.refused:
            self.intents[claim[0]] = Intent(claim[1])
            return "post"
        return "unknown" if intent.remote_id is None else "resume"

    def note_remote(self, id_: int, nonce: int, remote_id: int | None) -> None:
        """The provider's answer, or its webhook; None: it surely did not accept."""
        intent = self.intents.get(id_)
        if intent is not None and intent.nonce == nonce:
            intent.remote_id = remote_id
            intent.refused = remote_id is None


class World:
    """All parts, the true time, and the promises."""

    record_class: type[Record] = Record

    def __init__(self, seed: int, *, traced: bool = False) -> None:
        self.seed = seed
        self.random = Random(seed).random
        self.trace: list[str] | None = [] if traced else None
        self.now = 1000.0
        self.calm = False  #: faults have stopped
        self.record = self.record_class()
        self.brokers: dict[str, list[int]] = {LOCAL: [], REMOTE: []}
        self.processes: list[Process] = []
        self.frozen: list[Process] = []
        self.store: dict[Key, int] = {}  #: the attempt that wrote it
        self.visible: dict[Key, int] = {}  #: what a caller can see
        self.wanted: dict[int, int] = {}  #: images of each accepted job
        self.seen: dict[int, tuple[JobState, int]] = {}
        self.fresh: dict[Claim, float] = {}  #: when its lease was last given, by the true time
        self.delivered: dict[int, list[JobState]] = {}
        self.accepted: dict[int, int] = {}  #: job: nonce that the provider took money for
        self.losses = {LOCAL: 0, REMOTE: 0}  #: marks whose ticket is gone by a fault
        self.extras = {LOCAL: 0, REMOTE: 0}  #: tickets whose mark is gone, or that were doubled
        self.resent = {LOCAL: 0, REMOTE: 0}
        self.popped = {LOCAL: 0, REMOTE: 0}

    def note(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.now - 1000:7.2f}  {text}")

    def hit(self, share: float) -> bool:
        """Whether a fault of this likelihood strikes now."""
        return not self.calm and self.random() < share

    def clock(self, process: Process) -> float:  # noqa: ARG002
        """The time that leases go by: the database's, whatever the process's own clock shows."""
        return self.now

    # jobs

    def accept(self, job: JobRow, images: int) -> None:
        self.record.create(job)
        self.wanted[job.id] = images
        self.seen[job.id] = QUEUED, 0
        self.note(f"job {job.id} is accepted ({job.queue}, {images} images)")

    def look(self) -> None:
        """Whether each job moved as the table allows; called after each step, as each is one transaction."""
        seen = self.seen
        for id_, job in self.record.jobs.items():
            status, attempt = seen[id_]
            if job.status is not status or job.attempt != attempt:
                self._moved(job, status, attempt)
                seen[id_] = job.status, job.attempt

    def _moved(self, job: JobRow, status: JobState, attempt: int) -> None:
        self.note(f"job {job.id}: {status} {attempt} -> {job.status} {job.attempt} {job.error or ''}")
        if job.status not in TRANSITIONS[status]:
            raise Violation(f"job {job.id} went from {status} ({attempt}) to {job.status} ({job.attempt})")
        if job.attempt != attempt + (job.status is RUNNING):
            raise Violation(f"the attempts of job {job.id} went from {attempt} to {job.attempt}")
        if job.attempt > 2 * MAX_ATTEMPTS - 1 or self.record.deaths(job) > MAX_ATTEMPTS:
            raise Violation(f"job {job.id} was started {job.attempt} times")
        if job.status is SUCCESS:
            self._shown(job)

    def _shown(self, job: JobRow) -> None:
        if len(job.images) != self.wanted[job.id]:
            raise Violation(f"job {job.id} shows {len(job.images)} images of {self.wanted[job.id]}")
        for n, attempt, _ in job.images:
            key = self.key((job.id, attempt), n)
            if attempt != job.attempt or self.store.get(key) != attempt:
                raise Violation(f"image {n} of job {job.id} is not what its winner {job.attempt} stored")
            self.visible[key] = attempt

    def hide(self, id_: int) -> None:
        """An erased job shows nothing."""
        for key in [key for key in self.visible if key[0] == id_]:
            del self.visible[key]

    # objects

    def key(self, claim: Claim, n: int) -> Key:
        return claim[0], claim[1], n

    def put(self, claim: Claim, n: int) -> str:
        key = self.key(claim, n)
        self.note(f"attempt {claim} puts {key}")
        if key in self.visible:
            raise Violation(f"attempt {claim} wrote over {key}, which a caller sees")
        self.store[key] = claim[1]
        return str(key)

    def delete_prefix(self, id_: int, attempt: int | None) -> None:
        """None: every attempt of the job."""
        for key in [key for key in self.store if key[0] == id_ and attempt in (None, key[1])]:
            self.note(f"{key} is deleted")
            if key in self.visible:
                raise Violation(f"{key} was deleted, which a caller sees")
            del self.store[key]

    # tickets

    def send(self, queue: str, id_: int) -> None:
        self.note(f"a ticket for job {id_} is sent")
        self.brokers[queue].append(id_)

    def look_at_tickets(self, queue: str) -> None:
        """Each mark has a ticket and each ticket a mark, but for those that a fault took or doubled."""
        tickets, marks = len(self.brokers[queue]), self.record.in_flight(queue)
        under_way = self.under_way(queue)
        if marks > tickets + under_way + self.losses[queue]:
            raise Violation(f"{marks} jobs of {queue} are marked as dispatched, with {tickets} tickets out")
        if tickets > marks + self.extras[queue]:
            raise Violation(f"{tickets} tickets of {queue} are out for {marks} jobs")

    def under_way(self, queue: str) -> int:
        everyone = self.processes + self.frozen if self.frozen else self.processes
        return sum([one.in_hand + one.unsent for one in everyone if one.queue == queue])

    def excuses(self, queue: str) -> int:
        """Grows with all that makes a look at marks and tickets, one after the other, see a gap that is none."""
        return self.popped[queue] + self.resent[queue] + self.extras[queue]

    # leases

    def taken(self, claims: Sequence[Claim]) -> None:
        """The sweeper took these attempts away."""
        for claim in claims:
            if self.now - self.fresh[claim] < LEASE:
                raise Violation(f"attempt {claim} was taken away though it renewed in time")

    # the provider and the receiver

    def pay(self, claim: Claim) -> None:
        id_ = claim[0]
        self.note(f"attempt {claim} submits, and the provider accepts")
        if id_ in self.accepted:
            raise Violation(f"job {id_} was paid for twice, by attempts {self.accepted[id_]} and {claim[1]}")
        self.accepted[id_] = claim[1]

    def receive(self, id_: int, status: JobState) -> None:
        self.note(f"a webhook tells that job {id_} is {status}")
        self.delivered.setdefault(id_, []).append(status)

    # the end

    def judge(self) -> None:
        """Whether every accepted job ended exactly once, is told of, and nothing is left over."""
        for id_ in self.wanted:
            job = self.record.jobs.get(id_)
            if job is not None:
                self._judge_job(job)
        left = self.store.keys() - self.visible.keys()
        if left:
            raise Violation(f"objects are left that nobody sees: {sorted(left)}")

    def _judge_job(self, job: JobRow) -> None:
        ends = [event for event in job.events if event in ENDS]
        if ends != [job.status]:
            raise Violation(f"job {job.id} is {job.status} and has the final events {ends}")
        if set(self.delivered.get(job.id, ())) != {job.status}:
            raise Violation(f"job {job.id} is {job.status}; webhooks told {self.delivered.get(job.id)}")
        if bool(job.images) != (job.status is SUCCESS):
            raise Violation(f"job {job.id} is {job.status} with {len(job.images)} images")


ENDS: Final = frozenset({SUCCESS.value, FAILED.value, CANCELED.value})
