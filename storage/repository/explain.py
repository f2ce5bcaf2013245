"""Why a job waits: who goes before it, and who could render it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from fluxfarm.jobs import JobState
from storage.records import Job

COUNTED: Final = 10_000  #: the place is not counted further, so that the answer is quick behind a million jobs


def place(session: Session, job: Job) -> int:
    """How many jobs of the same queue go before a QUEUED one, at most ``COUNTED``; 0 is next."""
    if job.dispatched_at is not None:
        before = and_(Job.dispatched_at.is_not(None), Job.dispatched_at < job.dispatched_at)
    else:
        earlier = or_(
            Job.lane < job.lane,
            and_(Job.lane == job.lane, Job.priority > job.priority),
            and_(Job.lane == job.lane, Job.priority == job.priority, Job.seq < job.seq),
        )
        before = or_(Job.dispatched_at.is_not(None), and_(Job.run_after.is_(None), earlier))
    ahead = (
        select(Job.uuid)
        .where(Job.queue == job.queue, Job.status == JobState.QUEUED, Job.uuid != job.uuid, before)
        .limit(COUNTED)
        .subquery()
    )
    return session.scalar(select(func.count()).select_from(ahead)) or 0
