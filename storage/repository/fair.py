"""Reads the waiting flows of a queue and their shares, picks the next jobs by ``storage/fairness.py``, keeps the times.

Its cost grows with the number of tenants and campaigns that wait, not with the number of jobs: a flow is found by one
probe of the index ``ix_jobs_ready`` (a loose index scan).
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Row, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fluxfarm.jobs import JobState
from storage import fairness
from storage.fairness import Campaign, Flow, Tenant
from storage.records import CampaignShare, Job, QueueClock, TenantShare

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
           coalesce(its.time, 0) AS campaign_time
      FROM flows
      JOIN tenants ON tenants.id = flows.tenant_id
      LEFT JOIN tenant_shares AS mine ON mine.queue = :queue AND mine.tenant_id = flows.tenant_id
      LEFT JOIN campaign_shares AS its
             ON its.queue = :queue AND its.tenant_id = flows.tenant_id AND its.campaign = flows.campaign
    """
)


@dataclass(frozen=True, slots=True)
class Next:
    """The job whose turn it is."""

    uuid: UUID
    was_dispatched: bool


def waiting_flows(session: Session, queue: str) -> list[Flow]:
    """The lines in which jobs of a queue wait, with what their owners were given."""
    tenants: dict[UUID, Tenant] = {}
    campaigns: dict[tuple[UUID, str], Campaign] = {}
    flows = []
    for row in session.execute(FLOWS, {"queue": queue}):
        tenant = tenants.setdefault(
            row.tenant_id, Tenant(row.tenant_id, float(row.weight), row.tenant_time, row.campaign_clock)
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


def _first(
    session: Session, queue: str, flow: Flow, *, undispatched: bool, limit: int
) -> list[Row[UUID, object, float]]:
    query = (
        select(Job.uuid, Job.dispatched_at, Job.gpu_seconds)
        .where(
            Job.queue == queue,
            Job.status == JobState.QUEUED,
            Job.run_after.is_(None),
            Job.lane == flow.lane,
            Job.tenant_id == flow.tenant.id,
            Job.campaign == flow.campaign.name,
            or_(Job.deadline.is_(None), Job.deadline > func.now()),
        )
        .order_by(Job.lane, Job.tenant_id, Job.campaign, Job.priority.desc(), Job.seq)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    if undispatched:
        query = query.where(Job.dispatched_at.is_(None))
    return list(session.execute(query))


def take_next(session: Session, queue: str) -> Next | None:
    """Lock the job whose turn it is and charge its owner; the caller claims it in the same transaction."""
    clock = _lock_clock(session, queue)
    flows = waiting_flows(session, queue)
    clock = fairness.advance(flows, clock)
    while (flow := fairness.choose(flows, clock)) is not None:
        found = _first(session, queue, flow, undispatched=False, limit=1)
        if found:
            uuid, dispatched_at, seconds = found[0]
            fairness.charge(flow, flows, clock, seconds)
            _keep(session, queue, flow, clock)
            return Next(uuid, dispatched_at is not None)
        flows.remove(flow)
    return None


def _keep(session: Session, queue: str, flow: Flow, clock: float) -> None:
    tenant, campaign = flow.tenant, flow.campaign
    session.execute(update(QueueClock).where(QueueClock.queue == queue).values(time=clock))
    mine = {"time": tenant.time, "campaign_clock": tenant.campaign_clock}
    session.execute(
        insert(TenantShare)
        .values(queue=queue, tenant_id=tenant.id, **mine)
        .on_conflict_do_update(index_elements=["queue", "tenant_id"], set_=mine)
    )
    session.execute(
        insert(CampaignShare)
        .values(queue=queue, tenant_id=tenant.id, campaign=campaign.name, time=campaign.time)
        .on_conflict_do_update(index_elements=["queue", "tenant_id", "campaign"], set_={"time": campaign.time})
    )


def correct(session: Session, job: UUID, seconds: float) -> None:
    """Replace the estimate that was charged at the claim by what the render really took."""
    row = session.execute(
        select(Job.queue, Job.tenant_id, Job.campaign, Job.gpu_seconds).where(Job.uuid == job)
    ).one_or_none()
    if row is None:
        return
    weight = session.scalar(text("SELECT weight FROM tenants WHERE id = :id"), {"id": row.tenant_id})
    difference = seconds - row.gpu_seconds
    session.execute(
        update(TenantShare)
        .where(TenantShare.queue == row.queue, TenantShare.tenant_id == row.tenant_id)
        .values(time=TenantShare.time + difference / float(weight or 1))
    )
    session.execute(
        update(CampaignShare)
        .where(
            CampaignShare.queue == row.queue,
            CampaignShare.tenant_id == row.tenant_id,
            CampaignShare.campaign == row.campaign,
        )
        .values(time=CampaignShare.time + difference)
    )


def upcoming(session: Session, queue: str, count: int, *, undispatched: bool = True) -> list[UUID]:
    """The next ``count`` jobs in the order in which they would be taken if nothing else came; locked, not charged."""
    flows = waiting_flows(session, queue)
    clock = fairness.advance(flows, read_clock(session, queue))
    heads: dict[int, list[Row[UUID, object, float]]] = {}
    chosen: list[UUID] = []
    while len(chosen) < count and (flow := fairness.choose(flows, clock)) is not None:
        line = heads.get(id(flow))
        if line is None:
            line = heads[id(flow)] = _first(session, queue, flow, undispatched=undispatched, limit=count)
        if not line:
            flows.remove(flow)
            continue
        uuid, _, seconds = line.pop(0)
        fairness.charge(flow, flows, clock, seconds)
        chosen.append(uuid)
        clock = fairness.advance(flows, clock)
    return chosen
