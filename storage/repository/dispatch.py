"""Which queued job goes to the broker next; the rest waits here, where it can be stopped or re-ordered at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Integer, Interval, any_, func, literal, literal_column, select, text, update
from sqlalchemy.orm import Session

from fluxfarm.airecord import Problem
from fluxfarm.jobs import JobState
from storage.records import Job, Worker
from storage.repository import campaign_ends, events, fair, workers

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


@dataclass(frozen=True, slots=True)
class Window:
    """The tickets of a queue that no worker has claimed yet, and the slots of its live workers."""

    sent: int
    slots: int

    def room(self, multiple: float, *, least: float = 0.0) -> int:
        """How many tickets may be sent now: none below the share ``least`` of the window, a multiple of the slots."""
        whole = max(SMALLEST_WINDOW, math.ceil(multiple * self.slots))
        room = max(0, whole - self.sent)
        return room if room >= least * whole else 0


#: a window, for the queue of a row of ``jobs``
SENT: Final = literal_column(
    "(SELECT count(*) FROM jobs AS other"
    " WHERE other.queue = jobs.queue AND other.status = 'QUEUED' AND other.dispatched_at IS NOT NULL)",
    Integer,
).label("sent")
SLOTS: Final = (
    select(func.coalesce(func.sum(Worker.slots), 0))
    .where(Worker.heartbeat_at > workers.recent(), literal_column("jobs.queue") == any_(Worker.queues))
    .label("slots")
)

#: of a queue in which something waits; no row: nothing does
WINDOW: Final = (
    select(SENT, SLOTS)
    .select_from(Job)
    .where(text("queue = :queue AND status = 'QUEUED' AND run_after IS NULL AND dispatched_at IS NULL"))
    .limit(1)
)


def room(session: Session, queue: str, multiple: float, *, least: float = 0.0) -> int:
    """How many tickets may be sent now: none when the window is full or nothing waits. One round trip."""
    row = session.execute(WINDOW, {"queue": queue}).one_or_none()
    return 0 if row is None else Window(*row).room(multiple, least=least)


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


def settle(session: Session, queue: str, ticket: UUID, spent: int) -> None:
    """One ticket was taken from the broker, and ``spent`` jobs with tickets were claimed for it: let both agree again.

    The tickets of the others are still out; they go to the next jobs without one, as any ticket is leave for any job.
    """
    if spent == 0:
        return_ticket(session, queue, ticket)
    elif spent > 1:
        pick(session, queue, spent - 1)


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
    rows = session.execute(
        update(Job)
        .where(Job.uuid == due.c.uuid)
        .values(
            status=JobState.CANCELED,
            finished_at=func.now(),
            error=problem.model_dump(mode="json", by_alias=True),
        )
        .returning(Job.uuid, Job.tenant_id, Job.campaign)
    ).all()
    for row in rows:
        events.add_status(session, row.uuid, JobState.CANCELED, problem)
    campaign_ends.tell(session, [(row.tenant_id, row.campaign) for row in rows])
    return [row.uuid for row in rows]


def stale(session: Session, queue: str, *, older_than: float, gap: int) -> list[UUID]:
    """The oldest ``gap`` tickets that were sent more than that many seconds ago: their messages may be lost."""
    lost = (
        select(Job.uuid)
        .where(
            Job.queue == queue,
            Job.status == JobState.QUEUED,
            Job.dispatched_at < func.now() - literal(timedelta(seconds=older_than), Interval),
        )
        .order_by(Job.dispatched_at)
        .limit(gap)
        .with_for_update(skip_locked=True)
        .cte("lost")  # a subquery might be run once a row, and each time give the next one
    )
    rows = session.scalars(
        update(Job).where(Job.uuid == lost.c.uuid).values(dispatched_at=func.now()).returning(Job.uuid)
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
