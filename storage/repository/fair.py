"""Reads the waiting flows of a queue and their shares, picks the next jobs by ``storage/fairness.py``, keeps the times.

Its cost grows with the number of tenants and campaigns that wait, not with the number of jobs: a flow is found by one
probe of the index ``ix_jobs_ready`` (a loose index scan), and one of ``ix_campaigns_held`` says whether it is paused.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final
from uuid import UUID

from sqlalchemy import func, or_, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fluxfarm.jobs import JobState
from storage import fairness
from storage.fairness import Campaign, Flow, Tenant
from storage.records import Job, QueueClock

FLOWS = text(
    """
    WITH RECURSIVE flows AS (
        (SELECT lane, tenant_id, campaign FROM jobs
          WHERE queue = :queue AND status = 'QUEUED' AND run_after IS NULL
          ORDER BY lane, tenant_id, campaign LIMIT 1)
        UNION ALL
        SELECT following.* FROM flows CROSS JOIN LATERAL (
            SELECT lane, tenant_id, campaign FROM jobs
             WHERE queue = :queue AND status = 'QUEUED' AND run_after IS NULL
               AND (lane, tenant_id, campaign) > (flows.lane, flows.tenant_id, flows.campaign)
             ORDER BY lane, tenant_id, campaign LIMIT 1) AS following
    )
    SELECT flows.lane, flows.tenant_id, flows.campaign, tenants.weight,
           coalesce(mine.time, 0) AS tenant_time, coalesce(mine.campaign_clock, 0) AS campaign_clock,
           coalesce(its.time, 0) AS campaign_time,
           tenants.max_running - running.count AS room,
           tenants.max_running - running.count - ticketed.count AS ticket_room
      FROM flows
      JOIN tenants ON tenants.id = flows.tenant_id
      LEFT JOIN tenant_shares AS mine ON mine.queue = :queue AND mine.tenant_id = flows.tenant_id
      LEFT JOIN campaign_shares AS its
             ON its.queue = :queue AND its.tenant_id = flows.tenant_id AND its.campaign = flows.campaign
      LEFT JOIN LATERAL (
          SELECT count(*) FROM jobs WHERE status = 'RUNNING' AND tenant_id = tenants.id
      ) AS running ON tenants.max_running IS NOT NULL
      LEFT JOIN LATERAL (
          SELECT count(*) FROM jobs
           WHERE status = 'QUEUED' AND dispatched_at IS NOT NULL AND tenant_id = tenants.id
      ) AS ticketed ON tenants.max_running IS NOT NULL
     WHERE NOT EXISTS (SELECT FROM campaigns AS held
                        WHERE held.tenant_id = flows.tenant_id AND held.name = flows.campaign AND held.wish <> 'run')
    """
)


KEEP = text(
    """
    WITH clock AS (UPDATE queue_clocks SET time = :clock WHERE queue = :queue),
    mine AS (
        INSERT INTO tenant_shares AS share (queue, tenant_id, time, campaign_clock)
        VALUES (:queue, :tenant_id, :clock + :by_weight, :campaign_clock)
        ON CONFLICT (queue, tenant_id) DO UPDATE
           SET time = greatest(share.time, :clock) + :by_weight, campaign_clock = :campaign_clock
    )
    INSERT INTO campaign_shares AS share (queue, tenant_id, campaign, time)
    VALUES (:queue, :tenant_id, :campaign, :campaign_clock + :seconds)
    ON CONFLICT (queue, tenant_id, campaign) DO UPDATE
       SET time = greatest(share.time, :campaign_clock) + :seconds
    """
)


#: a tenant with a cap is counted by one claim at a time, whatever its queue; in one order, so that none deadlocks
LOCK_CAPPED: Final = text("SELECT FROM tenants WHERE id = ANY (:ids) ORDER BY id FOR NO KEY UPDATE")


def waiting_flows(session: Session, queue: str) -> list[Flow]:
    """The lines in which jobs of a queue wait, with what their owners were given and may have running."""
    tenants: dict[UUID, Tenant] = {}
    campaigns: dict[tuple[UUID, str], Campaign] = {}
    flows = []
    for row in session.execute(FLOWS, {"queue": queue}):
        tenant = tenants.setdefault(
            row.tenant_id,
            Tenant(
                row.tenant_id,
                float(row.weight),
                row.tenant_time,
                row.campaign_clock,
                room=inf if row.room is None else row.room,
                ticket_room=inf if row.ticket_room is None else row.ticket_room,
            ),
        )
        campaign = campaigns.setdefault((row.tenant_id, row.campaign), Campaign(row.campaign, row.campaign_time))
        flows.append(Flow(row.lane, tenant, campaign))
    return flows


def read_clock(session: Session, queue: str) -> float:
    """The queue's virtual clock, without a lock: for those who only look."""
    return session.scalar(select(QueueClock.time).where(QueueClock.queue == queue)) or 0.0


def _lock_clock(session: Session, queue: str) -> float:
    locked = select(QueueClock.time).where(QueueClock.queue == queue).with_for_update()
    found = session.scalar(locked)
    if found is None:
        session.execute(insert(QueueClock).values(queue=queue).on_conflict_do_nothing())
        found = session.scalar(locked)
    return found or 0.0


def _undispatched(session: Session, queue: str, flow: Flow, limit: int) -> deque[tuple[UUID, float]]:
    query = (
        select(Job.uuid, Job.gpu_seconds)
        .where(
            Job.queue == queue,
            Job.status == JobState.QUEUED,
            Job.run_after.is_(None),
            Job.lane == flow.lane,
            Job.tenant_id == flow.tenant.id,
            Job.campaign == flow.campaign.name,
            Job.dispatched_at.is_(None),
            or_(Job.deadline.is_(None), Job.deadline > func.now()),
        )
        .order_by(Job.lane, Job.tenant_id, Job.campaign, Job.priority.desc(), Job.seq)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return deque((row.uuid, row.gpu_seconds) for row in session.execute(query))


class Turn:
    """One choice on a queue, under the lock of its clock; shares are added to, so that no correction is lost."""

    def __init__(self, session: Session, queue: str) -> None:
        """Locks the clock until the transaction ends."""
        self._session = session
        self._queue = queue
        clock = _lock_clock(session, queue)
        flows = _counted_flows(session, queue)
        self._flows = [flow for flow in flows if flow.tenant.room > 0]
        self.holds_back = len(self._flows) < len(flows)  #: a tenant has as many jobs running as it may
        self._clock = fairness.advance(self._flows, clock)

    def flow(self) -> Flow | None:
        """The line whose first job is next."""
        return fairness.choose(self._flows, self._clock)

    def flows_of_lane(self, lane: int) -> list[Flow]:
        """The lines of a lane whose owners may have more running."""
        return [flow for flow in self._flows if flow.lane == lane and flow.tenant.room > 0]

    def flow_among(self, flows: list[Flow]) -> Flow | None:
        """The one of these lines that is next."""
        return fairness.choose([flow for flow in flows if flow.tenant.room > 0], self._clock)

    def skip(self, flow: Flow) -> None:
        """Nothing could be taken from it now."""
        self._flows.remove(flow)

    def charge(self, flow: Flow, seconds: float) -> None:
        """Its owner was given that many GPU-seconds, for one job."""
        self.keep([self.owe(flow, seconds)])

    def owe(self, flow: Flow, seconds: float) -> dict[str, object]:
        """The same, for the choices that follow; ``keep`` writes what comes back."""
        fairness.charge(flow, self._flows, self._clock, seconds)
        tenant = flow.tenant
        tenant.room -= 1
        owed: dict[str, object] = {
            "queue": self._queue,
            "clock": self._clock,
            "tenant_id": tenant.id,
            "by_weight": seconds / tenant.weight,
            "campaign": flow.campaign.name,
            "campaign_clock": tenant.campaign_clock,
            "seconds": seconds,
        }
        self._clock = fairness.advance(self._flows, self._clock)
        return owed

    def keep(self, owed: list[dict[str, object]]) -> None:
        """Write charges, in their order."""
        self._session.execute(KEEP, owed)


def _counted_flows(session: Session, queue: str) -> list[Flow]:
    """The flows for a claim: tenants with a cap stay locked until the transaction ends, so that their count holds."""
    flows = waiting_flows(session, queue)
    capped = {flow.tenant.id for flow in flows if flow.tenant.room < inf}
    if capped:
        session.execute(LOCK_CAPPED, {"ids": list(capped)})
        flows = waiting_flows(session, queue)  # what others started meanwhile counts
    return flows


def upcoming(session: Session, queue: str, count: int) -> list[UUID]:
    """The next ``count`` jobs that have no ticket, in the order of their turns; locked, not charged."""
    flows = [flow for flow in waiting_flows(session, queue) if flow.tenant.ticket_room > 0]
    clock = fairness.advance(flows, read_clock(session, queue))
    heads: dict[int, deque[tuple[UUID, float]]] = {}
    chosen: list[UUID] = []
    while len(chosen) < count and (flow := fairness.choose(flows, clock)) is not None:
        line = heads.get(id(flow))
        if line is None:
            line = heads[id(flow)] = _undispatched(session, queue, flow, count)
        if not line:
            flows.remove(flow)
            continue
        uuid, seconds = line.popleft()
        fairness.charge(flow, flows, clock, seconds)
        chosen.append(uuid)
        flow.tenant.ticket_room -= 1
        if flow.tenant.ticket_room <= 0:
            flows = [other for other in flows if other.tenant is not flow.tenant]
        clock = fairness.advance(flows, clock)
    return chosen
