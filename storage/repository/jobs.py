"""Jobs as their owners see them: create, read, list, cancel, delete. Each query takes the tenant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from itertools import chain
from typing import Any, Final, TypeVar
from uuid import UUID

from psycopg.types.json import Json, Jsonb
from sqlalchemy import Select, bindparam, delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from fluxfarm.airecord import Problem
from fluxfarm.costs import gpu_seconds
from fluxfarm.errors import Conflict, ExternalIdTaken, NotFound
from fluxfarm.jobs import JobState, Lane, sources
from fluxfarm.request import RenderRequest
from fluxfarm.routing import RoutePlan
from storage.records import Attempt, Erasure, Job
from storage.repository import campaign_assets, copying, events, ledger
from storage.repository.reading import WHOLE, load


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
    route: RoutePlan | None = None
    price: Decimal = Decimal(0)  #: USD that is reserved for it with its row
    campaign: str | None = None
    tags: tuple[str, ...] = ()
    deadline: datetime | None = None
    external_id: str | None = None
    retry_of: UUID | None = None
    webhook_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which jobs a listing shows; None is any."""

    status: JobState | None = None
    campaign: str | None = None
    tag: str | None = None
    error: str | None = None
    external_id: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, the newest first, and where the next page starts."""

    jobs: list[Job]
    next_before: int | None = field(default=None)


def create(session: Session, new: NewJob) -> Job:
    """Store a job as QUEUED.

    Raises:
        ExternalIdTaken: another job of the tenant has its external id; it is named.
        BudgetExceeded: a budget has no room for its price.
    """
    job = _row(new)
    try:
        # The savepoint is only for what a caller can collide with: it costs two round trips.
        with session.begin_nested() if new.external_id is not None else nullcontext():
            session.add(job)
            session.flush()
    except IntegrityError as error:
        if "ix_jobs_external_id" not in str(error.orig):
            raise
        other = session.scalar(
            select(Job.uuid).where(Job.tenant_id == new.tenant_id, Job.external_id == new.external_id)
        )
        message = "Another job has this externalId; read that one, or give this one another name."
        raise ExternalIdTaken(message, param="externalId", job=other) from None
    if new.retry_of is not None and new.campaign:
        campaign_assets.follow(session, [new.uuid])
    ledger.reserve(session, new.tenant_id, new.campaign or "", new.uuid, new.price)
    return job


def reroute(session: Session, job: Job, queue: str, plan: RoutePlan | None, price: Decimal) -> None:
    """Another place and price for a job that was stored in this very transaction.

    Raises:
        BudgetExceeded: a budget has no room for it.
    """
    job.queue = queue
    job.remote = plan is not None and plan.may_leave
    job.route = None if plan is None else plan.model_dump(mode="json", by_alias=True)
    session.flush()
    ledger.adjust(session, job.tenant_id, job.campaign, job.uuid, price)


def create_many(session: Session, new: Sequence[NewJob]) -> None:
    """Store jobs without external ids as QUEUED, in their order and in few round trips.

    Raises:
        BudgetExceeded: a budget has no room for them all.
    """
    session.add_all([_row(one) for one in new])
    session.flush()
    campaign_assets.follow(session, [one.uuid for one in new if one.retry_of is not None and one.campaign])
    _reserve(session, new)


def copy_many(session: Session, new: Iterable[NewJob]) -> set[str]:
    """The same for thousands of new jobs that are no retries: one statement, no objects; gives their queues."""
    priced: list[NewJob] = []
    queues: set[str] = set()

    def noted(one: NewJob) -> dict[str, Any]:
        queues.add(one.queue)
        if one.price:
            priced.append(one)
        return _columns(one)

    rows = map(noted, new)
    first = next(rows, None)
    if first is not None:
        names = list(first)
        copying.copy_rows(session, "jobs", names, (_copied(one) for one in chain([first], rows)))
    _reserve(session, priced)
    return queues


def _reserve(session: Session, new: Iterable[NewJob]) -> None:
    """Their prices, in one round trip a campaign."""
    prices: dict[tuple[UUID, str], dict[UUID, Decimal]] = {}
    for one in new:
        if one.price:
            prices.setdefault((one.tenant_id, one.campaign or ""), {})[one.uuid] = one.price
    for (tenant_id, campaign), amounts in sorted(prices.items()):
        ledger.reserve_many(session, tenant_id, campaign, amounts)


def _copied(columns: dict[str, Any]) -> list[Any]:
    route = columns["route"]
    made = columns | {
        "request": Jsonb(columns["request"]),
        "prompt_object": Json(columns["prompt_object"]),
        "route": None if route is None else Jsonb(route),
    }
    return [value.value if isinstance(value, StrEnum) else value for value in made.values()]


def _row(new: NewJob) -> Job:
    return Job(**_columns(new), attempts=[], images=[])


def _columns(new: NewJob) -> dict[str, Any]:
    request = new.request
    return {
        "uuid": new.uuid,
        "tenant_id": new.tenant_id,
        "type": request.type,
        "model": request.model,
        "status": JobState.QUEUED,
        "lane": new.lane.rank,
        "priority": new.priority,
        "queue": new.queue,
        "provider": new.provider,
        "remote": new.route is not None and new.route.may_leave,
        "route": None if new.route is None else new.route.model_dump(mode="json", by_alias=True),
        "request": request.model_dump(mode="json"),
        "prompt_object": new.prompt_object,
        "campaign": new.campaign or "",
        "gpu_seconds": gpu_seconds(request),
        "tags": list(new.tags),
        "external_id": new.external_id,
        "retry_of": new.retry_of,
        "webhook_id": new.webhook_id,
        "deadline": new.deadline,
        "steps": request.steps * request.n,
    }


AnySelect = TypeVar("AnySelect", bound=Select[*tuple[Any, ...]])
OWNED: Final = WHOLE.where(Job.tenant_id == bindparam("tenant_id"), Job.uuid == bindparam("uuid"))


def read(session: Session, tenant_id: UUID, uuid: UUID) -> Job:
    """The tenant's job with its attempts and images.

    Raises:
        NotFound: no such job, or somebody else's.
    """
    found = load(session, OWNED, {"tenant_id": tenant_id, "uuid": uuid})
    if not found:
        raise NotFound(f"There is no job {uuid}.")
    return found[0]


def status(session: Session, tenant_id: UUID, uuid: UUID) -> JobState:
    """Only the state: what a long poll asks for again and again.

    Raises:
        NotFound: no such job, or somebody else's.
    """
    found = session.scalar(select(Job.status).where(Job.tenant_id == tenant_id, Job.uuid == uuid))
    if found is None:
        raise NotFound(f"There is no job {uuid}.")
    return found


def is_alive(session: Session, uuid: UUID) -> bool:
    """Whether the job is neither over nor erased."""
    found = session.scalar(select(Job.status).where(Job.uuid == uuid))
    return found is not None and not found.is_final


def cost(session: Session, uuid: UUID) -> Decimal:
    """USD that the job has cost so far."""
    return session.scalar(select(Job.cost).where(Job.uuid == uuid)) or Decimal(0)


def asked(session: Session, uuid: UUID) -> dict[str, Any]:
    """What the caller sent, under the caller's names."""
    return session.scalar(select(Job.prompt_object).where(Job.uuid == uuid)) or {}


def list_page(session: Session, tenant_id: UUID, wanted: Filter, *, before: int | None, limit: int) -> Page:
    """At most ``limit`` jobs of the tenant that are older than ``before``."""
    query = filtered(WHOLE, tenant_id, wanted).order_by(Job.seq.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(Job.seq < before)
    jobs = load(session, query)
    more = len(jobs) > limit
    return Page(jobs[:limit], jobs[limit - 1].seq if more else None)


def filtered(query: AnySelect, tenant_id: UUID, wanted: Filter) -> AnySelect:
    """Only the tenant's jobs that the filter lets through."""
    query = query.where(Job.tenant_id == tenant_id)
    if wanted.status is not None:
        query = query.where(Job.status == wanted.status)
    if wanted.campaign is not None:
        query = query.where(Job.campaign == wanted.campaign)
    if wanted.tag is not None:
        query = query.where(Job.tags.contains([wanted.tag]))
    if wanted.error is not None:
        query = query.where(Job.error["code"].astext == wanted.error)
    if wanted.external_id is not None:
        query = query.where(Job.external_id == wanted.external_id)
    return query


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
        .returning(Job.attempt)
    ).scalar_one_or_none()
    if changed is None:
        state = status(session, tenant_id, uuid)
        raise Conflict(f"Job {uuid} is already {state}; only a QUEUED or RUNNING job can be canceled.")
    session.execute(
        update(Attempt)
        .where(Attempt.job_uuid == uuid, Attempt.status == JobState.RUNNING)
        .values(status=JobState.CANCELED, ended_at=func.now())
    )
    events.add_status(session, uuid, JobState.CANCELED, problem)
    events.announce_stop(session, uuid, changed)
    return read(session, tenant_id, uuid)


def erase(session: Session, tenant_id: UUID, uuid: UUID) -> None:
    """Remove the record with its prompt, attempts, images and events; a running attempt stops and is fenced out.

    What stays is a note that the job's objects must be gone, until the sweeper has made sure of it.

    Raises:
        NotFound: no such job, or somebody else's.
    """
    gone = session.execute(
        delete(Job).where(Job.tenant_id == tenant_id, Job.uuid == uuid).returning(Job.uuid)
    ).scalar_one_or_none()
    if gone is None:
        raise NotFound(f"There is no job {uuid}.")
    session.add(Erasure(job_uuid=uuid, tenant_id=tenant_id))
    ledger.close(session, uuid)
    events.announce_stop(session, uuid, None)
