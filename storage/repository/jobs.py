"""Jobs as their owners see them: create, read, list, cancel, delete. Each query takes the tenant."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.orm import Session

from fluxfarm.airecord import Problem
from fluxfarm.costs import gpu_seconds
from fluxfarm.errors import Conflict, NotFound
from fluxfarm.jobs import JobState, Lane, sources
from fluxfarm.request import RenderRequest
from storage.records import Attempt, Job
from storage.repository import events


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """What is needed to accept a job."""

    uuid: UUID
    tenant_id: UUID
    request: RenderRequest
    prompt_object: dict[str, Any]
    queue: str
    lane: Lane = Lane.INTERACTIVE
    priority: int = 0
    provider: str = "auto"
    campaign: str | None = None
    tags: tuple[str, ...] = ()
    deadline: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which jobs a listing shows; None is any."""

    status: JobState | None = None
    campaign: str | None = None
    tag: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, the newest first, and where the next page starts."""

    jobs: list[Job]
    next_before: int | None = field(default=None)


def create(session: Session, new: NewJob) -> Job:
    """Store a job as QUEUED."""
    request = new.request
    job = Job(
        uuid=new.uuid,
        tenant_id=new.tenant_id,
        type=request.type,
        model=request.model,
        status=JobState.QUEUED,
        lane=new.lane.rank,
        priority=new.priority,
        queue=new.queue,
        provider=new.provider,
        request=request.model_dump(mode="json"),
        prompt_object=new.prompt_object,
        campaign=new.campaign or "",
        gpu_seconds=gpu_seconds(request),
        tags=list(new.tags),
        deadline=new.deadline,
        steps=request.steps * request.n,
        attempts=[],
        images=[],
    )
    session.add(job)
    session.flush()
    return job


def _owned(tenant_id: UUID, uuid: UUID) -> Select[Job]:
    return select(Job).where(Job.tenant_id == tenant_id, Job.uuid == uuid)


def read(session: Session, tenant_id: UUID, uuid: UUID) -> Job:
    """The tenant's job.

    Raises:
        NotFound: no such job, or somebody else's.
    """
    job = session.scalars(_owned(tenant_id, uuid)).one_or_none()
    if job is None:
        raise NotFound(f"There is no job {uuid}.")
    return job


def status(session: Session, tenant_id: UUID, uuid: UUID) -> JobState:
    """Only the state: what a long poll asks for again and again.

    Raises:
        NotFound: no such job, or somebody else's.
    """
    found = session.scalar(select(Job.status).where(Job.tenant_id == tenant_id, Job.uuid == uuid))
    if found is None:
        raise NotFound(f"There is no job {uuid}.")
    return found


def list_page(session: Session, tenant_id: UUID, wanted: Filter, *, before: int | None, limit: int) -> Page:
    """At most ``limit`` jobs of the tenant that are older than ``before``."""
    query = select(Job).where(Job.tenant_id == tenant_id).order_by(Job.seq.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(Job.seq < before)
    if wanted.status is not None:
        query = query.where(Job.status == wanted.status)
    if wanted.campaign is not None:
        query = query.where(Job.campaign == wanted.campaign)
    if wanted.tag is not None:
        query = query.where(Job.tags.contains([wanted.tag]))
    if wanted.error is not None:
        query = query.where(Job.error["code"].astext == wanted.error)
    jobs = list(session.scalars(query))
    more = len(jobs) > limit
    return Page(jobs[:limit], jobs[limit - 1].seq if more else None)


def cancel(session: Session, tenant_id: UUID, uuid: UUID, problem: Problem) -> Job:
    """Stop a job that is not over; its worker hears of it at once and can finish nothing any more.

    Raises:
        NotFound: no such job, or somebody else's.
        Conflict: the job is already over; the message names its state.
    """
    changed = session.execute(
        update(Job)
        .where(Job.tenant_id == tenant_id, Job.uuid == uuid, Job.status.in_(sources(JobState.CANCELED)))
        .values(
            status=JobState.CANCELED,
            finished_at=func.now(),
            lease_expires_at=None,
            error=problem.model_dump(mode="json", by_alias=True),
        )
        .returning(Job.uuid)
    ).scalar_one_or_none()
    job = read(session, tenant_id, uuid)
    if changed is None:
        raise Conflict(f"Job {uuid} is already {job.status}; only a QUEUED or RUNNING job can be canceled.")
    session.execute(
        update(Attempt)
        .where(Attempt.job_uuid == uuid, Attempt.status == JobState.RUNNING)
        .values(status=JobState.CANCELED, ended_at=func.now())
    )
    session.refresh(job)
    events.add_status(session, uuid, JobState.CANCELED, problem)
    events.announce_stop(session, uuid)
    return job


def erase(session: Session, tenant_id: UUID, uuid: UUID) -> None:
    """Remove the record with its prompt, attempts, images and events; a running attempt stops and is fenced out.

    Raises:
        NotFound: no such job, or somebody else's.
    """
    gone = session.execute(
        delete(Job).where(Job.tenant_id == tenant_id, Job.uuid == uuid).returning(Job.uuid)
    ).scalar_one_or_none()
    if gone is None:
        raise NotFound(f"There is no job {uuid}.")
    events.announce_stop(session, uuid)
