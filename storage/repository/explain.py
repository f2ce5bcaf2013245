"""Why a job waits: how many go before it in the fair order."""

from __future__ import annotations

from collections import deque
from typing import Final
from uuid import UUID

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from fluxfarm.jobs import JobState
from storage import fairness
from storage.fairness import Flow
from storage.records import Job
from storage.repository import fair

COUNTED: Final = 1_000  #: the place is not counted further, so that the answer is quick behind a million jobs


def place(session: Session, job: Job) -> int | None:
    """How many jobs of all tenants would start before this one if nothing else came, at most ``COUNTED``; 0 is next.

    None: it does not stand in line (it is not QUEUED, waits for a retry, or has missed its deadline). Nothing is locked
    or charged.
    """
    flows = fair.waiting_flows(session, job.queue)
    clock = fairness.advance(flows, fair.read_clock(session, job.queue))
    lines: dict[int, deque[tuple[UUID, float]]] = {}
    before = 0
    while before < COUNTED and (flow := fairness.choose(flows, clock)) is not None:
        line = lines.get(id(flow))
        if line is None:
            line = lines[id(flow)] = _line(session, job.queue, flow)
        if not line:
            flows.remove(flow)
            continue
        uuid, seconds = line.popleft()
        if uuid == job.uuid:
            return before
        fairness.charge(flow, flows, clock, seconds)
        clock = fairness.advance(flows, clock)
        before += 1
    return before if before == COUNTED else None


def _line(session: Session, queue: str, flow: Flow) -> deque[tuple[UUID, float]]:
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
        .limit(COUNTED)
    )
    return deque((row.uuid, row.gpu_seconds) for row in rows)
