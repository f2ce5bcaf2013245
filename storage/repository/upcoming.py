"""Who is likely to be drawn next: a hint for whoever can prepare something; the turn decides when it comes."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from fluxfarm.jobs import JobState
from fluxfarm.request import RenderRequest
from storage.records import Job
from storage.repository import turns


def likely(session: Session, queue: str, ticket: UUID, most: int) -> list[RenderRequest]:
    """The ticket's own job, then the others of the queue that have one, in that order; nothing is locked or claimed."""
    rows = session.execute(
        select(Job.request, Job.revised_prompt)
        .where(Job.queue == queue, Job.status == JobState.QUEUED, Job.dispatched_at.is_not(None))
        .order_by((Job.uuid == ticket).desc(), Job.dispatched_at, Job.seq)
        .limit(most)
    )
    return [turns.request_of(row) for row in rows]
