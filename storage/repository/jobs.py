"""Jobs as their owners see them: create, read, list, cancel, delete. Each query takes the tenant."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeVar
from typing import cast as typed
from uuid import UUID

from sqlalchemy import JSON, Select, Table, Text, Uuid, any_, bindparam, cast, column, delete, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session

from fluxfarm import tracing
from fluxfarm.airecord import Problem
from fluxfarm.costs import gpu_seconds
from fluxfarm.errors import Conflict, ExternalIdTaken, NotFound
from fluxfarm.jobs import JobState, Lane, sources
from fluxfarm.request import RenderRequest
from fluxfarm.routing import RoutePlan
from storage.records import ApiKey, Attempt, Erasure, Job, Tenant
from storage.repository import campaign_assets, campaign_ends, dispatch, events, ledger, tenants
from storage.repository.reading import WHOLE, load, loaded

TABLE: Final = typed("Table", Job.__table__)
EXTERNAL_ID: Final = "ix_jobs_external_id"  #: keeps external ids apart
SEARCHED: Final = 20_000  #: prompts are in no index, so a search ends somewhere
#: what is told of a new row; the rest are the table's defaults
TOLD: Final = (
    "uuid",
    "tenant_id",
    "type",
    "model",
    "status",
    "lane",
    "priority",
    "queue",
    "provider",
    "remote",
    "campaign",
    "gpu_seconds",
    "tags",
    "external_id",
    "retry_of",
    "webhook_id",
    "traceparent",
    "deadline",
    "steps",
    "request",
    "prompt_object",
    "route",
)
#: the rows that arrive as a JSON array, so that one statement stores one as well as fifty
ARRIVING: Final = (
    func.json_to_recordset(cast(bindparam("rows", type_=Text), JSON))
    .table_valued(*(column(name, TABLE.c[name].type) for name in TOLD))
    .render_derived(name="arriving", with_types=True)
)
#: what an INSERT gives back
MADE: Final = (TABLE.c.uuid, TABLE.c.seq, TABLE.c.created_at, TABLE.c.cost, dispatch.SENT, dispatch.SLOTS)
#: stores the rows, in their order, but no second one of an external id
STORE: Final = (
    insert(TABLE)
    .from_select(TOLD, select(*ARRIVING.c))
    .on_conflict_do_nothing(index_elements=["tenant_id", "external_id"], index_where=TABLE.c.external_id.is_not(None))
    .returning(*MADE)
)


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
    traceparent: str | None = field(default_factory=tracing.current)  #: of the call that makes it

    @property
    def stands_alone(self) -> bool:
        """Whether its row is all that must be stored: no budget, no other place to go to, no file that waits for it."""
        return self.route is None and not self.price and self.retry_of is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which jobs a listing shows; None is any."""

    status: JobState | None = None
    campaign: str | None = None
    tag: str | None = None
    error: str | None = None
    external_id: str | None = None
    model: str | None = None
    words: str | None = None  #: in the prompt; looked for among the newest ``SEARCHED`` jobs


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, the newest first, and where the next page starts."""

    jobs: list[Job]
    next_before: int | None = field(default=None)


@dataclass(frozen=True, slots=True)
class Stored:
    """A job that was just stored, and how full its queue's window is."""

    job: Job
    window: dispatch.Window


def create(session: Session, new: NewJob) -> Job:
    """Store a job as QUEUED with all that hangs on it.

    Raises:
        ExternalIdTaken: another job of the tenant has its external id; it is named.
        BudgetExceeded: a budget has no room for its price.
    """
    made = store(session, new)
    if new.retry_of is not None and new.campaign:
        campaign_assets.follow(session, [new.uuid])
    ledger.reserve(session, new.tenant_id, new.campaign or "", new.uuid, new.price)
    return made.job


def store(session: Session, new: NewJob) -> Stored:
    """Store the row of a job as QUEUED, in one round trip; for a job that stands alone this is all.

    Raises:
        ExternalIdTaken: another job of the tenant has its external id; it is named.
    """
    values = columns(new)
    row = session.execute(STORE, {"rows": arriving([values])}).one_or_none()
    if row is None:
        raise external_id_taken(session, new)
    return stored(values, row)


def reroute(session: Session, job: Job, queue: str, plan: RoutePlan | None, price: Decimal) -> None:
    """Another place and price for a job that was stored in this very transaction.

    Raises:
        BudgetExceeded: a budget has no room for it.
    """
    job.queue = queue
    job.remote = plan is not None and plan.may_leave
    job.route = None if plan is None else plan.model_dump(mode="json", by_alias=True)
    changed = {"queue": job.queue, "remote": job.remote, "route": job.route}
    session.execute(update(TABLE).where(TABLE.c.uuid == job.uuid).values(changed))
    ledger.adjust(session, job.tenant_id, job.campaign, job.uuid, price)


def create_many(session: Session, new: Sequence[NewJob]) -> None:
    """Store jobs without external ids as QUEUED, in their order and in few round trips.

    Raises:
        BudgetExceeded: a budget has no room for them all.
    """
    if new:
        session.execute(insert(TABLE), [columns(one) for one in new])
    campaign_assets.follow(session, [one.uuid for one in new if one.retry_of is not None and one.campaign])
    reserve_all(session, new)


def reserve_all(session: Session, new: Iterable[NewJob]) -> None:
    """Reserve their prices, in one round trip a campaign."""
    prices: dict[tuple[UUID, str], dict[UUID, Decimal]] = {}
    for one in new:
        if one.price:
            prices.setdefault((one.tenant_id, one.campaign or ""), {})[one.uuid] = one.price
    for (tenant_id, campaign), amounts in sorted(prices.items()):
        ledger.reserve_many(session, tenant_id, campaign, amounts)


def columns(new: NewJob) -> dict[str, Any]:
    """What the row of a new job is told; the rest are the table's defaults."""
    return plain(new) | {
        "request": new.request.model_dump(mode="json"),
        "prompt_object": new.prompt_object,
        "route": None if new.route is None else new.route.model_dump(mode="json", by_alias=True),
    }


def plain(new: NewJob) -> dict[str, Any]:
    """What of a row is no JSON."""
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
        "campaign": new.campaign or "",
        "gpu_seconds": gpu_seconds(request),
        "tags": list(new.tags),
        "external_id": new.external_id,
        "retry_of": new.retry_of,
        "webhook_id": new.webhook_id,
        "traceparent": new.traceparent,
        "deadline": new.deadline,
        "steps": request.steps * request.n,
    }


def arriving(rows: Sequence[Mapping[str, Any]]) -> str:
    """The ``columns`` of new rows as ``ARRIVING`` takes them."""
    return json.dumps(rows, default=str, separators=(",", ":"))


def stored(values: Mapping[str, Any], row: Sequence[Any]) -> Stored:
    """The job of a row that was inserted; ``row`` has the columns ``MADE``."""
    _, seq, created_at, cost, sent, slots = row
    told = {"seq": seq, "created_at": created_at, "cost": cost}
    rest = {"attempt": 0, "step": 0, "erased": [], "attempts": [], "images": []}
    job = loaded(Job, {**values, **told, **rest})
    return Stored(job, dispatch.Window(sent=sent, slots=slots))


def external_id_taken(session: Session, new: NewJob) -> ExternalIdTaken:
    """The error that names the job which has the external id."""
    other = session.scalar(select(Job.uuid).where(Job.tenant_id == new.tenant_id, Job.external_id == new.external_id))
    message = "Another job has this externalId; read that one, or give this one another name."
    return ExternalIdTaken(message, param="externalId", job=other)


AnySelect = TypeVar("AnySelect", bound=Select[*tuple[Any, ...]])
OWNED: Final = WHOLE.where(Job.tenant_id == bindparam("tenant_id"), Job.uuid == bindparam("uuid"))
READ_AS: Final = (
    WHOLE.add_columns(*tenants.CALLER)
    .select_from(ApiKey)
    .join(Tenant, Tenant.id == ApiKey.tenant_id)
    .outerjoin(Job, (Job.tenant_id == ApiKey.tenant_id) & (Job.uuid == any_(bindparam("uuids", type_=ARRAY(Uuid)))))
    .where(*tenants.IS_LIVE)
)


def read(session: Session, tenant_id: UUID, uuid: UUID) -> Job:
    """The tenant's job with its attempts and images.

    Raises:
        NotFound: no such job, or somebody else's.
    """
    found = load(session, OWNED, {"tenant_id": tenant_id, "uuid": uuid})
    if not found:
        raise no_job(uuid)
    return found[0]


def no_job(uuid: UUID) -> NotFound:
    """What is raised when a tenant has no such job."""
    return NotFound(f"There is no job {uuid}.")


def status(session: Session, tenant_id: UUID, uuid: UUID) -> JobState:
    """Only the state: what a long poll asks for again and again.

    Raises:
        NotFound: no such job, or somebody else's.
    """
    found = session.scalar(select(Job.status).where(Job.tenant_id == tenant_id, Job.uuid == uuid))
    if found is None:
        raise no_job(uuid)
    return found


def is_alive(session: Session, uuid: UUID) -> bool:
    """Whether the job is neither over nor erased."""
    found = session.scalar(select(Job.status).where(Job.uuid == uuid))
    return found is not None and not found.is_final


def is_canceled(session: Session, uuid: UUID) -> bool:
    """Whether the caller, a budget or a deadline stopped the job."""
    return session.scalar(select(Job.status).where(Job.uuid == uuid)) is JobState.CANCELED


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
    if wanted.model is not None:
        query = query.where(Job.model == wanted.model)
    if wanted.words is not None:
        newest = select(Job.seq).where(Job.tenant_id == tenant_id).order_by(Job.seq.desc()).limit(SEARCHED)
        query = query.where(
            Job.seq.in_(newest),
            Job.request["prompt"].astext.icontains(wanted.words, autoescape=True),
        )
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
    canceled = read(session, tenant_id, uuid)
    campaign_ends.tell(session, [(tenant_id, canceled.campaign)])
    return canceled


def erase(session: Session, tenant_id: UUID, uuid: UUID) -> None:
    """Remove the record with its prompt, attempts, images and events; a running attempt stops and is fenced out.

    What stays is a note that the job's objects must be gone, until the sweeper has made sure of it.

    Raises:
        NotFound: no such job, or somebody else's.
    """
    gone = session.execute(
        delete(Job).where(Job.tenant_id == tenant_id, Job.uuid == uuid).returning(Job.campaign, Job.status)
    ).one_or_none()
    if gone is None:
        raise no_job(uuid)
    session.execute(insert(Erasure).values(job_uuid=uuid, tenant_id=tenant_id).on_conflict_do_nothing())
    ledger.close(session, uuid)
    events.announce_stop(session, uuid, None)
    if not gone.status.is_final:
        campaign_ends.tell(session, [(tenant_id, gone.campaign)])
