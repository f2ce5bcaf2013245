"""The tables. ``Job`` is the record; everything else hangs on it or owns it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    Enum,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    Numeric,
    SmallInteger,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from fluxfarm.airecord import Problem
from fluxfarm.jobs import JobState, JobType
from fluxfarm.request import RenderRequest

Moment = DateTime(timezone=True)
Json = JSONB(none_as_null=True)


def _words(kind: type[JobState | JobType]) -> Enum:
    return Enum(kind, native_enum=False, create_constraint=False, length=32)


class Base(DeclarativeBase):
    """All tables; the naming convention keeps migrations stable."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: Moment,
        Decimal: Numeric(14, 6),
        str: Text,
        dict[str, Any]: Json,
        list[str]: ARRAY(Text),
        JobState: _words(JobState),
        JobType: _words(JobType),
    }


class Tenant(Base):
    """Who owns jobs, keys and references; tenants never meet."""

    __tablename__ = "tenants"
    __table_args__ = (
        CheckConstraint("weight > 0", name="weight"),
        CheckConstraint("max_running > 0 AND rate_limit > 0", name="caps"),
        CheckConstraint(
            "prompt_days >= 0 AND reference_hours >= 0 AND result_days >= 0 AND record_days >= 0", name="retention"
        ),
        CheckConstraint("safety IN ('off','log','block')", name="safety"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    name: Mapped[str] = mapped_column(unique=True)
    weight: Mapped[Decimal] = mapped_column(server_default=text("1"))  #: share of the GPUs against other tenants
    commercial: Mapped[bool] = mapped_column(server_default=text("false"))  #: no weights for non-commercial use
    models: Mapped[list[str] | None]  #: slugs that it may render; NULL: all
    max_running: Mapped[int | None]  #: jobs that may render at once; NULL: as its share allows
    rate_limit: Mapped[int | None]  #: calls a minute of each of its keys; NULL: the farm's setting
    prompt_days: Mapped[int | None]  #: kept after the job's end; NULL: the farm's setting; 0: until it is erased
    reference_hours: Mapped[int | None]
    result_days: Mapped[int | None]
    record_days: Mapped[int | None]
    safety: Mapped[str | None]  #: off, log, block; NULL: the farm's setting
    deny: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))  #: besides the farm's; see fluxfarm.denials
    may_disable_safety: Mapped[bool] = mapped_column(server_default=text("false"))  #: by a switch of each job
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ApiKey(Base):
    """A key of a tenant; only its SHA-256 is kept."""

    __tablename__ = "api_keys"
    __table_args__ = (Index(None, "tenant_id"), CheckConstraint("rate_limit > 0", name="rate_limit"))

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    name: Mapped[str]
    prefix: Mapped[str]  #: the first characters, to tell keys apart
    digest: Mapped[bytes] = mapped_column(unique=True)
    scopes: Mapped[list[str]]
    rate_limit: Mapped[int | None]  #: calls a minute, where the tenant's are too many
    replaced_by: Mapped[UUID | None] = mapped_column(ForeignKey("api_keys.id", ondelete="SET NULL"))  #: rotated to
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class Job(Base):
    """One request to render, from its 202 to its end."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("status IN ('QUEUED','RUNNING','SUCCESS','FAILED','CANCELED')", name="status"),
        CheckConstraint("status <> 'RUNNING' OR lease_expires_at IS NOT NULL", name="running_has_lease"),
        Index("ix_jobs_tenant_seq", "tenant_id", "seq"),
        Index("ix_jobs_campaign", "tenant_id", "campaign", "seq", postgresql_where=text("campaign <> ''")),
        Index(
            "ix_jobs_campaign_waiting",
            "tenant_id",
            "campaign",
            postgresql_where=text("status = 'QUEUED' AND campaign <> ''"),
        ),
        Index("ix_jobs_tags", "tags", postgresql_using="gin"),
        Index(
            "ix_jobs_ready",
            "queue",
            "lane",
            "tenant_id",
            "campaign",
            text("priority DESC"),
            "seq",
            postgresql_where=text("status = 'QUEUED' AND run_after IS NULL"),
        ),
        Index(
            "ix_jobs_dispatched",
            "queue",
            "dispatched_at",
            postgresql_where=text("status = 'QUEUED' AND dispatched_at IS NOT NULL"),
        ),
        Index("ix_jobs_postponed", "run_after", postgresql_where=text("status = 'QUEUED' AND run_after IS NOT NULL")),
        Index("ix_jobs_deadline", "deadline", postgresql_where=text("status = 'QUEUED' AND deadline IS NOT NULL")),
        Index("ix_jobs_lease", "lease_expires_at", postgresql_where=text("status = 'RUNNING'")),
        Index("ix_jobs_movable", "queue", "seq", postgresql_where=text("status = 'QUEUED' AND remote")),
        Index("ix_jobs_finished", "queue", "finished_at", postgresql_where=text("status = 'SUCCESS'")),
        Index("ix_jobs_failed", "tenant_id", "seq", postgresql_where=text("status = 'FAILED'")),
        Index("ix_jobs_kept", "tenant_id", "finished_at", "seq", postgresql_where=text("finished_at IS NOT NULL")),
        Index(
            "ix_jobs_references",
            text("(request -> 'references')"),
            postgresql_using="gin",
            postgresql_where=text("status IN ('QUEUED','RUNNING') AND type = 'IMAGE_EDITOR'"),
        ),
        Index("ix_jobs_retry_of", "retry_of", unique=True, postgresql_where=text("retry_of IS NOT NULL")),
        Index(
            "ix_jobs_external_id",
            "tenant_id",
            "external_id",
            unique=True,
            postgresql_where=text("external_id IS NOT NULL"),
        ),
    )

    uuid: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True))  #: age; also the cursor of listings
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    type: Mapped[JobType]
    model: Mapped[str]
    status: Mapped[JobState] = mapped_column(server_default=text("'QUEUED'"))
    lane: Mapped[int] = mapped_column(SmallInteger)  #: rank of fluxfarm.jobs.Lane
    priority: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    queue: Mapped[str]
    provider: Mapped[str]  #: what the caller asked for: auto, local or a name
    remote: Mapped[bool] = mapped_column(server_default=text("false"))  #: a remote provider may render it
    route: Mapped[dict[str, Any] | None]  #: a fluxfarm.routing.Plan: the wish, and what was weighed when it came
    request: Mapped[dict[str, Any]]  #: a RenderRequest
    prompt_object: Mapped[dict[str, Any]] = mapped_column(JSON)  #: what the caller sent, in its own order
    campaign: Mapped[str] = mapped_column(server_default=text("''"))  #: empty: outside campaigns
    gpu_seconds: Mapped[float] = mapped_column(Double, server_default=text("0"))  #: expected when it was accepted
    tags: Mapped[list[str]]
    external_id: Mapped[str | None]  #: the caller's own name of the job, once per tenant
    webhook_id: Mapped[str | None]  #: who is told of the end; no foreign key: an endpoint may go before its jobs
    revised_prompt: Mapped[str | None]  #: what an upsampler made of the prompt; every attempt renders this
    retry_of: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.uuid", ondelete="SET NULL"))  #: at most one each
    traceparent: Mapped[str | None]  #: the call that made it, in W3C's form; NULL: no traces are kept
    attempt: Mapped[int] = mapped_column(server_default=text("0"))  #: number of starts; fences every later write
    worker_id: Mapped[UUID | None]
    lease_expires_at: Mapped[datetime | None]
    run_after: Mapped[datetime | None]  #: a retry waits for this; NULL is ready
    deadline: Mapped[datetime | None]  #: must have started by then
    dispatched_at: Mapped[datetime | None]  #: when a ticket went to the broker
    step: Mapped[int] = mapped_column(server_default=text("0"))
    steps: Mapped[int]
    cost: Mapped[Decimal] = mapped_column(server_default=text("0"))  #: USD
    error: Mapped[dict[str, Any] | None]
    erased: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))  #: by retention: prompt, references, results
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    attempts: Mapped[list[Attempt]] = relationship(order_by="Attempt.number", viewonly=True)
    images: Mapped[list[Image]] = relationship(order_by="Image.n", viewonly=True)

    @property
    def render_request(self) -> RenderRequest:
        """The canonical request, as it was stored."""
        return RenderRequest.model_validate(self.request)

    @property
    def problem(self) -> Problem | None:
        """Why the job ended badly."""
        return None if self.error is None else Problem.model_validate(self.error)


class IdempotencyKey(Base):
    """What a caller's ``Idempotency-Key`` stands for: a job, with which it goes, or a reply; nothing of the body."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index(None, "job_uuid"), Index(None, "expires_at"))

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[bytes]  #: SHA-256 of the call that came with it first
    holder: Mapped[UUID]  #: the request that works on it: the uuid that its job will have
    job_uuid: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.uuid", ondelete="CASCADE"))
    sealed_reply: Mapped[str | None]  #: of a call that made no job: encrypted, as it may show a secret
    status_code: Mapped[int | None] = mapped_column(SmallInteger)  #: of the first reply; NULL: in flight
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]


class Attempt(Base):
    """One start of a job."""

    __tablename__ = "attempts"
    __table_args__ = (
        Index("ix_attempts_unswept", "ended_at", postgresql_where=text("swept = false AND ended_at IS NOT NULL")),
        Index("ix_attempts_started_at", "started_at", postgresql_using="brin"),
    )

    job_uuid: Mapped[UUID] = mapped_column(ForeignKey("jobs.uuid", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    provider: Mapped[str]
    worker: Mapped[str | None]
    model_revision: Mapped[str | None]
    status: Mapped[JobState]
    seeds: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    effective: Mapped[dict[str, Any]]
    ignored: Mapped[list[str]]
    model: Mapped[str | None]  #: that it rendered with; not the job's where the caller allowed another
    route: Mapped[dict[str, Any] | None]  #: why this provider: the candidates and the choice
    parameters: Mapped[dict[str, Any] | None]  #: what a remote provider did with each, where it is not passed through
    device: Mapped[dict[str, Any] | None]  #: how its kernels were set, and what it took of the device
    batch: Mapped[dict[str, Any] | None]  #: position and size in the call that drew it, and whose turn it was
    timings: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    cost: Mapped[Decimal | None]
    error: Mapped[dict[str, Any] | None]
    swept: Mapped[bool] = mapped_column(server_default=text("false"))  #: objects of a losing attempt are gone
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]


class Image(Base):
    """One picture of a job that succeeded."""

    __tablename__ = "images"
    __table_args__ = (Index(None, "sha256"),)

    job_uuid: Mapped[UUID] = mapped_column(ForeignKey("jobs.uuid", ondelete="CASCADE"), primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    object_key: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    width: Mapped[int]
    height: Mapped[int]
    content_type: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]


class Event(Base):
    """What happened to a job, in order; the event stream replays it."""

    __tablename__ = "events"
    __table_args__ = (Index(None, "job_uuid", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    job_uuid: Mapped[UUID] = mapped_column(ForeignKey("jobs.uuid", ondelete="CASCADE"))
    kind: Mapped[str]  #: status or progress
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Reference(Base):
    """An uploaded picture that jobs may name; stored re-encoded, never as it came."""

    __tablename__ = "reference_images"
    __table_args__ = (Index(None, "tenant_id", "created_at"), Index(None, "tenant_id", "sha256"))

    id: Mapped[str] = mapped_column(primary_key=True)  #: ref_ and 22 random letters
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    object_key: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Worker(Base):
    """A process that renders, as it last said of itself."""

    __tablename__ = "workers"
    __table_args__ = (Index(None, "heartbeat_at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    pid: Mapped[int]
    provider: Mapped[str]
    queues: Mapped[list[str]]
    models: Mapped[list[str]]
    device: Mapped[str]
    slots: Mapped[int]
    state: Mapped[str]  #: starting, loading, ready, stopping
    warm: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))  #: models that are on the device now
    loading: Mapped[str | None]  #: the model that is being loaded
    loaded_at: Mapped[datetime | None]  #: when that should be done, by its last load here
    memory_used: Mapped[int | None] = mapped_column(BigInteger)  #: bytes of the GPU, or of the process without one
    memory_total: Mapped[int | None] = mapped_column(BigInteger)  #: bytes of the GPU; None: the process is meant
    utilisation: Mapped[float | None] = mapped_column(Double)  #: share of the time in which the GPU works
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now())


class QueueClock(Base):
    """The virtual clock of a queue; whoever takes the next job holds its row for that long."""

    __tablename__ = "queue_clocks"

    queue: Mapped[str] = mapped_column(primary_key=True)
    time: Mapped[float] = mapped_column(Double, server_default=text("0"))
    pace: Mapped[float] = mapped_column(Double, server_default=text("1"))  #: measured seconds for an expected one


class Erasure(Base):
    """A job that was erased, without a word of it, until the sweeper has made sure of its objects."""

    __tablename__ = "erasures"

    job_uuid: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID]
    erased_at: Mapped[datetime] = mapped_column(server_default=func.now())


class TenantShare(Base):
    """GPU-seconds by weight that a tenant was given on a queue."""

    __tablename__ = "tenant_shares"

    queue: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    time: Mapped[float] = mapped_column(Double, server_default=text("0"))
    campaign_clock: Mapped[float] = mapped_column(Double, server_default=text("0"))


class CampaignShare(Base):
    """GPU-seconds that a campaign of a tenant was given on a queue; the empty name is jobs outside campaigns."""

    __tablename__ = "campaign_shares"

    queue: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    campaign: Mapped[str] = mapped_column(primary_key=True)
    time: Mapped[float] = mapped_column(Double, server_default=text("0"))
