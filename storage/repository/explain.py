"""Why a job waits: how many go before it in the fair order, and when it will be done."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import func, or_, select, text
from sqlalchemy.orm import Session

from fluxfarm.jobs import JobState
from storage import fairness
from storage.fairness import Flow
from storage.records import Job
from storage.repository import fair

END: Final = text(
    """
    SELECT pace.pace, now() + make_interval(secs => pace.pace * (coalesce(running.seconds, 0) + :before) / :workers)
           AS started
      FROM (SELECT coalesce((SELECT pace FROM queue_clocks WHERE queue = :queue), 1) AS pace) AS pace,
           (SELECT sum(gpu_seconds * (1 - step::float / greatest(steps, 1))) AS seconds
              FROM jobs WHERE queue = :queue AND status = 'RUNNING') AS running
    """
)
CAP: Final = text(
    """
    SELECT max_running FROM tenants
     WHERE id = :tenant_id
       AND max_running <= (SELECT count(*) FROM jobs WHERE status = 'RUNNING' AND tenant_id = :tenant_id)
    """
)
COUNTED: Final = 1_000  #: the place is not counted further, so that the answer is quick behind a million jobs


@dataclass(frozen=True, slots=True)
class Standing:
    """A place in the fair order."""

    before: int  #: jobs that would start first if nothing else came, counted to ``COUNTED``
    gpu_seconds: float  #: what they are expected to take


def standing(session: Session, job: Job, counted: int = COUNTED) -> Standing | None:
    """The place of a QUEUED job among those of all tenants; 0 is next, and more than ``counted`` is not told apart.

    None: it does not stand in line (it is not QUEUED, waits for a retry, or has missed its deadline). Nothing is locked
    or charged.
    """
    flows = fair.waiting_flows(session, job.queue)
    clock = fairness.advance(flows, fair.read_clock(session, job.queue))
    lines: dict[int, deque[tuple[UUID, float]]] = {}
    before, total = 0, 0.0
    while before < counted and (flow := fairness.choose(flows, clock)) is not None:
        line = lines.get(id(flow))
        if line is None:
            line = lines[id(flow)] = _line(session, job.queue, flow, counted)
        if not line:
            flows.remove(flow)
            continue
        uuid, seconds = line.popleft()
        if uuid == job.uuid:
            return Standing(before, total)
        fairness.charge(flow, flows, clock, seconds)
        clock = fairness.advance(flows, clock)
        before, total = before + 1, total + seconds
    return Standing(before, total) if before == counted else None


def reached_cap(session: Session, job: Job) -> int | None:
    """The cap of the job's tenant on running jobs, if so many run now."""
    cap: int | None = session.scalar(CAP, {"tenant_id": job.tenant_id})
    return cap


def expected_end(session: Session, job: Job, place: Standing | None, workers: int) -> datetime | None:
    """When the job will be done, at the pace that its queue was measured at; None: it cannot be said.

    The expected GPU-seconds of what runs and of what goes before are shared by the live workers; each finish has
    corrected the pace (a moving average over about ten jobs).
    """
    if not workers or place is None or place.before >= COUNTED:
        return None
    row = session.execute(END, {"queue": job.queue, "before": place.gpu_seconds, "workers": workers}).one()
    end: datetime = row.started + timedelta(seconds=row.pace * job.gpu_seconds)
    return end


def _line(session: Session, queue: str, flow: Flow, counted: int) -> deque[tuple[UUID, float]]:
    rows = session.execute(
        select(Job.uuid, Job.gpu_seconds)
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
        .limit(counted)
    )
    return deque((row.uuid, row.gpu_seconds) for row in rows)
