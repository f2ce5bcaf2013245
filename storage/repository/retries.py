"""Jobs that are tried again by their owner: a final state stays final, so a retry is a new job that names the old one.

A job has at most one retry (a unique index says so too); its retry can be retried in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased, raiseload

from fluxfarm.errors import AlreadyRetried, Conflict, Gone, NotFound
from fluxfarm.jobs import JobState, Lane
from fluxfarm.routing import RoutePlan
from storage.records import Job
from storage.repository.jobs import Filter, NewJob, filtered

RETRYABLE: Final = (JobState.FAILED, JobState.CANCELED)


def lock_one(session: Session, tenant_id: UUID, uuid: UUID) -> Job:
    """The job, held against other retries of it until the transaction ends.

    Raises:
        NotFound: no such job, or somebody else's.
        Conflict: its state; the message names it.
        AlreadyRetried: it has a retry, which is named.
    """
    job = session.scalars(
        select(Job).where(Job.tenant_id == tenant_id, Job.uuid == uuid).with_for_update(key_share=True)
    ).one_or_none()
    if job is None:
        raise NotFound(f"There is no job {uuid}.")
    if job.status not in RETRYABLE:
        raise Conflict(f"Job {uuid} is {job.status}; only a FAILED or CANCELED job can be retried.")
    retry = session.scalar(select(Job.uuid).where(Job.retry_of == uuid))
    if retry is not None:
        raise AlreadyRetried(f"Job {uuid} was retried before, as {retry}; retry that one.", job=retry)
    return job


def candidates(session: Session, tenant_id: UUID, wanted: Filter, *, before: int | None, limit: int) -> list[Job]:
    """Jobs older than ``before`` that were not retried yet, the newest first; ``wanted`` has a status.

    So whoever goes on page after page never meets the retries that the pages before have made.
    """
    assert wanted.status in RETRYABLE
    retry = aliased(Job)
    query = filtered(select(Job), tenant_id, wanted)
    query = query.where(~select(retry.uuid).where(retry.retry_of == Job.uuid).exists())
    if before is not None:
        query = query.where(Job.seq < before)
    # Only what a retry needs: no attempts, no images.
    return list(session.scalars(query.order_by(Job.seq.desc()).limit(limit).options(raiseload("*"))))


def lock_many(session: Session, tenant_id: UUID, uuids: Sequence[UUID]) -> set[UUID]:
    """Those of the jobs that can be retried now, held against other retries until the transaction ends."""
    held = session.scalars(
        select(Job.uuid)
        .where(Job.tenant_id == tenant_id, Job.uuid.in_(uuids), Job.status.in_(RETRYABLE))
        .order_by(Job.seq)
        .with_for_update(key_share=True)
    ).all()
    # A statement of its own: only it sees what another retry committed while this one waited for the rows.
    retried = session.scalars(select(Job.retry_of).where(Job.retry_of.in_(held))).all()
    return set(held) - set(retried)


def again(
    old: Job,
    uuid: UUID,
    queue: str,
    references: Sequence[str],
    plan: RoutePlan | None = None,
    price: Decimal = Decimal(0),
) -> NewJob:
    """The same order under a new uuid: same seeds, same lane, same campaign; a deadline only if it is still ahead.

    The external id stays with the first job, which it names for good.

    Raises:
        Gone: the prompt was erased.
    """
    if not old.render_request.prompt:
        raise Gone(f"The prompt of job {old.uuid} was erased, as its time was over; post the job anew.")
    return NewJob(
        uuid=uuid,
        tenant_id=old.tenant_id,
        request=old.render_request.model_copy(update={"references": tuple(references)}),
        prompt_object=old.prompt_object,
        queue=queue,
        lane=list(Lane)[old.lane],
        priority=old.priority,
        provider=old.provider,
        route=plan,
        price=price,
        campaign=old.campaign or None,
        tags=tuple(old.tags),
        deadline=old.deadline if old.deadline is not None and old.deadline > datetime.now(UTC) else None,
        retry_of=old.uuid,
        webhook_id=old.webhook_id,
    )
