"""Which queued job goes to the broker next; the rest waits here, where it can be stopped or re-ordered at once."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Interval, func, literal, select, text, update
from sqlalchemy.orm import Session

from fluxfarm.airecord import Problem
from fluxfarm.jobs import JobState
from storage.records import Job
from storage.repository import events, fair, workers

SMALLEST_WINDOW: Final = 4  #: tickets per queue while no worker is alive, so that the first one finds work


def _waits() -> tuple[ColumnElement[bool], ...]:
    return Job.status == JobState.QUEUED, Job.dispatched_at.is_(None), Job.run_after.is_(None)


def queues(session: Session) -> list[str]:
    """Queues in which a job waits for a ticket; one index probe each, however many rows wait."""
    found: list[str] = []
    last = ""
    while True:
        following = session.scalar(select(func.min(Job.queue)).where(*_waits(), Job.queue > last))
        if following is None:
            return found
        found.append(following)
        last = following


ROOM: Final = text(
    """
    SELECT (SELECT count(*) FROM jobs WHERE queue = :queue AND status = 'QUEUED' AND dispatched_at IS NOT NULL) AS sent,
           (SELECT coalesce(sum(slots), 0) FROM workers
             WHERE heartbeat_at > now() - make_interval(secs => :alive) AND :queue = ANY (queues)) AS slots,
           EXISTS (SELECT FROM jobs WHERE queue = :queue AND status = 'QUEUED' AND run_after IS NULL
                                      AND dispatched_at IS NULL) AS waiting
    """
)


def room(session: Session, queue: str, window: float) -> int:
    """How many tickets may be sent now: none when the window is full or nothing waits. One round trip."""
    row = session.execute(ROOM, {"queue": queue, "alive": workers.ALIVE}).one()
    if not row.waiting:
        return 0
    size = max(SMALLEST_WINDOW, math.ceil(window * int(row.slots)))
    return max(0, size - int(row.sent))


def in_flight(session: Session, queue: str) -> int:
    """Tickets of the queue that no worker has claimed yet."""
    count = session.scalar(
        select(func.count())
        .select_from(Job)
        .where(Job.queue == queue, Job.status == JobState.QUEUED, Job.dispatched_at.is_not(None))
    )
    return count or 0


def pick(session: Session, queue: str, room: int) -> list[UUID]:
    """Mark up to ``room`` jobs as dispatched, in fair order; two dispatchers never pick the same job."""
    chosen = fair.upcoming(session, queue, room)
    session.execute(update(Job).where(Job.uuid.in_(chosen)).values(dispatched_at=func.now()))
    return chosen


def return_ticket(session: Session, queue: str, ticket: UUID) -> None:
    """A ticket was spent on a more urgent job that had none: its own job, or another, waits for a new ticket."""
    left = (
        select(Job.uuid)
        .where(Job.queue == queue, Job.status == JobState.QUEUED, Job.dispatched_at.is_not(None))
        .order_by((Job.uuid == ticket).desc(), Job.dispatched_at.desc())
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    session.execute(update(Job).where(Job.uuid == left).values(dispatched_at=None))


def ripen(session: Session) -> int:
    """Let jobs whose retry time has come wait for a ticket again."""
    rows = session.execute(
        update(Job)
        .where(Job.status == JobState.QUEUED, Job.run_after <= func.now())
        .values(run_after=None, dispatched_at=None)
        .returning(Job.uuid)
    )
    return len(rows.all())


def overdue(session: Session, problem: Problem, limit: int = 500) -> list[UUID]:
    """Cancel queued jobs that can no longer start in time."""
    due = (
        select(Job.uuid)
        .where(Job.status == JobState.QUEUED, Job.deadline <= func.now())
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    rows = session.scalars(
        update(Job)
        .where(Job.uuid == due.c.uuid)
        .values(
            status=JobState.CANCELED,
            finished_at=func.now(),
            error=problem.model_dump(mode="json", by_alias=True),
        )
        .returning(Job.uuid)
    ).all()
    for uuid in rows:
        events.add_status(session, uuid, JobState.CANCELED, problem)
    return list(rows)


def stale(session: Session, queue: str, *, older_than: float, gap: int) -> list[UUID]:
    """The oldest ``gap`` tickets that were sent more than that many seconds ago: their messages may be lost."""
    rows = session.scalars(
        update(Job)
        .where(
            Job.uuid.in_(
                select(Job.uuid)
                .where(
                    Job.queue == queue,
                    Job.status == JobState.QUEUED,
                    Job.dispatched_at < func.now() - literal(timedelta(seconds=older_than), Interval),
                )
                .order_by(Job.dispatched_at)
                .limit(gap)
                .with_for_update(skip_locked=True)
            )
        )
        .values(dispatched_at=func.now())
        .returning(Job.uuid)
    )
    return list(rows)


def dispatched_queues(session: Session) -> list[str]:
    """Queues that have tickets out."""
    return list(
        session.scalars(
            select(Job.queue).where(Job.status == JobState.QUEUED, Job.dispatched_at.is_not(None)).distinct()
        )
    )


def release(session: Session, uuids: list[UUID]) -> None:
    """Take tickets back that could not be sent; the jobs wait for the next dispatch."""
    if uuids:
        session.execute(
            update(Job).where(Job.uuid.in_(uuids), Job.status == JobState.QUEUED).values(dispatched_at=None)
        )
