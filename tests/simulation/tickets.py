"""The twin of ``repository/dispatch.py`` and ``repository/fair.py`` in memory: rows, turns, tickets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from fluxfarm.jobs import JobState
from storage import fairness
from storage.fairness import Campaign, Flow, Tenant

QUEUED: Final = JobState.QUEUED  # an attribute of an enum costs as much as a dozen of a module
RUNNING: Final = JobState.RUNNING
SUCCESS: Final = JobState.SUCCESS
FAILED: Final = JobState.FAILED
CANCELED: Final = JobState.CANCELED


@dataclass(slots=True)
class AttemptRow:
    """What the twin keeps of a row of ``attempts``."""

    status: JobState = RUNNING
    ended_at: float | None = None
    error: str | None = None
    swept: bool = False


@dataclass(slots=True)
class JobRow:
    """What the twin keeps of a row of ``jobs`` and of what hangs on it; ``id`` is also the age."""

    id: int
    tenant: UUID
    queue: str = "local"
    lane: int = 0
    campaign: str = ""
    priority: int = 0
    gpu_seconds: float = 1.0
    deadline: float | None = None
    steps: int = 2
    status: JobState = QUEUED
    attempt: int = 0
    lease_expires_at: float | None = None
    run_after: float | None = None
    dispatched_at: float | None = None
    step: int = 0
    error: str | None = None
    finished_at: float | None = None
    attempts: dict[int, AttemptRow] = field(default_factory=dict)
    images: list[tuple[int, int, str]] = field(default_factory=list)  #: n, attempt, object key
    events: list[str] = field(default_factory=list)  #: states, and ``progress``


class Tickets:
    """Whose turn it is and which tickets are out; every method is one transaction at the database's time ``now``."""

    def __init__(self, weights: dict[UUID, float]) -> None:
        self.weights = weights
        self.jobs: dict[int, JobRow] = {}
        self.clocks: dict[str, float] = {}
        self.tenant_shares: dict[tuple[str, UUID], tuple[float, float]] = {}
        self.campaign_shares: dict[tuple[str, UUID, str], float] = {}

    # dispatch.py

    def queues(self) -> list[str]:
        waiting = {
            job.queue
            for job in self.jobs.values()
            if job.status is QUEUED and job.dispatched_at is None and job.run_after is None
        }
        return sorted(waiting)

    def dispatched(self, queue: str) -> list[JobRow]:
        return [
            job
            for job in self.jobs.values()
            if job.status is QUEUED and job.dispatched_at is not None and job.queue == queue
        ]

    def in_flight(self, queue: str) -> int:
        return len(self.dispatched(queue))

    def room(self, queue: str, size: int) -> int:
        """``size`` is the window, in tickets."""
        if queue not in self.queues():
            return 0
        return max(0, size - self.in_flight(queue))

    def dispatched_queues(self) -> list[str]:
        found = {job.queue for job in self.jobs.values() if job.status is QUEUED and job.dispatched_at is not None}
        return sorted(found)

    def pick(self, now: float, queue: str, room: int) -> list[int]:
        chosen = self.upcoming(now, queue, room)
        for id_ in chosen:
            self.jobs[id_].dispatched_at = now
        return chosen

    def return_ticket(self, queue: str, ticket: int) -> None:
        out = self.dispatched(queue)
        if out:
            left = max(out, key=lambda job: (job.id == ticket, job.dispatched_at))
            left.dispatched_at = None

    def ripen(self, now: float) -> int:
        count = 0
        for job in self.jobs.values():
            if job.run_after is not None and job.status is QUEUED and job.run_after <= now:
                job.run_after = job.dispatched_at = None
                count += 1
        return count

    def overdue(self, now: float, code: str) -> list[int]:
        late = [
            job
            for job in self.jobs.values()
            if job.deadline is not None and job.status is QUEUED and job.deadline <= now
        ]
        for job in late:
            job.status = CANCELED
            job.finished_at = now
            job.error = code
            self.add_status(job, CANCELED)
        return [job.id for job in late]

    def stale(self, now: float, queue: str, *, older_than: float, gap: int) -> list[int]:
        rows = [job for job in self.dispatched(queue) if (job.dispatched_at or 0.0) < now - older_than]
        rows.sort(key=lambda job: job.dispatched_at or 0.0)
        for job in rows[:gap]:
            job.dispatched_at = now
        return [job.id for job in rows[:gap]]

    def release(self, ids: list[int]) -> None:
        for id_ in ids:
            job = self.jobs.get(id_)
            if job is not None and job.status is QUEUED:
                job.dispatched_at = None

    def settle(self, now: float, queue: str, ticket: int, spent: int) -> None:
        if spent == 0:
            self.return_ticket(queue, ticket)
        elif spent > 1:
            self.pick(now, queue, spent - 1)

    # fair.py

    def take_next(self, now: float, queue: str) -> tuple[int, bool] | None:
        return self.next_in(queue, *self._waiting(now, queue, undispatched=False))

    def next_in(self, queue: str, flows: list[Flow], lines: dict[int, list[JobRow]]) -> tuple[int, bool] | None:
        clock = fairness.advance(flows, self.clocks.setdefault(queue, 0.0))
        while (flow := fairness.choose(flows, clock)) is not None:
            line = lines[id(flow)]
            if line:
                job = line.pop(0)
                fairness.charge(flow, flows, clock, job.gpu_seconds)
                self._keep(queue, flow, clock)
                return job.id, job.dispatched_at is not None
            flows.remove(flow)
        return None

    def followers(
        self, queue: str, leader: JobRow, room: int, flows: list[Flow], lines: dict[int, list[JobRow]]
    ) -> list[tuple[int, bool]]:
        """Jobs of the leader's shape (here its steps) and lane, in the order of their turns; charged as they go."""
        clock = fairness.advance(flows, self.clocks[queue])
        among = [flow for flow in flows if self.is_along(flow, leader)]
        chosen: list[tuple[int, bool]] = []
        while len(chosen) < room and (flow := fairness.choose(among, clock)) is not None:
            line = [job for job in lines[id(flow)] if self.may_follow(job, leader)]
            if not line:
                among.remove(flow)
                continue
            job = line[0]
            lines[id(flow)].remove(job)
            fairness.charge(flow, flows, clock, job.gpu_seconds)
            self._keep(queue, flow, clock)
            chosen.append((job.id, job.dispatched_at is not None))
            clock = fairness.advance(flows, clock)
        return chosen

    def is_along(self, flow: Flow, leader: JobRow) -> bool:
        return flow.lane == leader.lane

    def may_follow(self, job: JobRow, leader: JobRow) -> bool:
        return job.attempt == 0 and job.steps == leader.steps

    def upcoming(self, now: float, queue: str, count: int) -> list[int]:
        flows, lines = self._waiting(now, queue, undispatched=True)
        clock = fairness.advance(flows, self.clocks.get(queue, 0.0))
        chosen: list[int] = []
        while len(chosen) < count and (flow := fairness.choose(flows, clock)) is not None:
            line = lines[id(flow)]
            if not line:
                flows.remove(flow)
                continue
            job = line.pop(0)
            fairness.charge(flow, flows, clock, job.gpu_seconds)
            chosen.append(job.id)
            clock = fairness.advance(flows, clock)
        return chosen

    def correct(self, job: JobRow, seconds: float) -> None:
        difference = seconds - job.gpu_seconds
        mine = job.queue, job.tenant
        if mine in self.tenant_shares:
            time, campaign_clock = self.tenant_shares[mine]
            self.tenant_shares[mine] = time + difference / self.weights[job.tenant], campaign_clock
        its = job.queue, job.tenant, job.campaign
        if its in self.campaign_shares:
            self.campaign_shares[its] += difference

    def _waiting(self, now: float, queue: str, *, undispatched: bool) -> tuple[list[Flow], dict[int, list[JobRow]]]:
        """The flows of a queue, and the jobs of each that may be taken, the next one first."""
        tenants: dict[UUID, Tenant] = {}
        campaigns: dict[tuple[UUID, str], Campaign] = {}
        flows: dict[tuple[int, UUID, str], Flow] = {}
        lines: dict[int, list[JobRow]] = {}
        for job in self.jobs.values():
            if job.status is not QUEUED or job.run_after is not None or job.queue != queue:
                continue
            owner, name = job.tenant, job.campaign
            flow = flows.get((job.lane, owner, name))
            if flow is None:
                if owner not in tenants:
                    share = self.tenant_shares.get((queue, owner), (0.0, 0.0))
                    tenants[owner] = Tenant(owner, self.weights[owner], *share)
                if (owner, name) not in campaigns:
                    time = self.campaign_shares.get((queue, owner, name), 0.0)
                    campaigns[owner, name] = Campaign(name, time)
                flow = Flow(job.lane, tenants[owner], campaigns[owner, name])
                flows[job.lane, owner, name] = flow
                lines[id(flow)] = []
            if (job.deadline is None or job.deadline > now) and not (undispatched and job.dispatched_at is not None):
                lines[id(flow)].append(job)
        for line in lines.values():
            if len(line) > 1:
                line.sort(key=lambda job: (-job.priority, job.id))
        return list(flows.values()), lines

    def _keep(self, queue: str, flow: Flow, clock: float) -> None:
        tenant, campaign = flow.tenant, flow.campaign
        self.clocks[queue] = clock
        self.tenant_shares[queue, tenant.id] = tenant.time, tenant.campaign_clock
        self.campaign_shares[queue, tenant.id, campaign.name] = campaign.time

    # events.py

    def add_status(self, job: JobRow, status: JobState) -> None:
        job.events.append(status)
