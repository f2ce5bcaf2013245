"""The tables of webhooks: where to send, what is to be sent (the outbox), and what each attempt came to."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from storage.records import Base, Json


class Endpoint(Base):
    """A URL of a tenant that is told of its jobs' ends, in one form."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (
        CheckConstraint("form IN ('standard','fal','replicate')", name="form"),
        UniqueConstraint("tenant_id", "url", "form", "moments"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)  #: wh_ and 22 random letters
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    url: Mapped[str]
    form: Mapped[str] = mapped_column(server_default=text("'standard'"))  #: fluxfarm.webhooks.Form
    moments: Mapped[list[str]] = mapped_column(server_default=text("'{end}'"))  #: fluxfarm.webhooks.Moment
    #: of the standard form only, newest first: ``sealed`` (see storage.sealing), ``created_at``, and ``expires_at`` of
    #: those that were replaced
    secrets: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]
    paused_until: Mapped[datetime | None]  #: the receiver asked for patience
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Delivery(Base):
    """One message to one endpoint, written with what it tells of; its body is made when it is sent."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint("state IN ('pending','delivered','failed')", name="state"),
        Index(
            "ix_webhook_deliveries_pending",
            "endpoint_id",
            "next_attempt_at",
            postgresql_where=text("state = 'pending'"),
        ),
        Index("ix_webhook_deliveries_log", "endpoint_id", "seq"),
        Index("ix_webhook_deliveries_ended", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
        Index(None, "job_uuid"),
        Index("ix_webhook_deliveries_campaign", "campaign_id", postgresql_where=text("campaign_id IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)  #: msg_ and 22 random letters: the webhook-id
    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True))  #: age; also the cursor of listings
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="CASCADE"))
    job_uuid: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.uuid", ondelete="CASCADE"))
    #: of the end of a whole campaign; neither: a test
    campaign_id: Mapped[UUID | None] = mapped_column(ForeignKey("campaigns.id", ondelete="CASCADE"))
    type: Mapped[str]
    error_code: Mapped[str | None]  #: why the job ended badly
    state: Mapped[str] = mapped_column(server_default=text("'pending'"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))  #: in all; fences every later write
    tries: Mapped[int] = mapped_column(server_default=text("0"))  #: since it was made or replayed
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ticketed_at: Mapped[datetime | None]  #: when a ticket went to the broker
    lease_expires_at: Mapped[datetime | None]  #: a sender has it until then
    last_status: Mapped[int | None]
    last_error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]

    log: Mapped[list[DeliveryAttempt]] = relationship(lazy="selectin", order_by="DeliveryAttempt.number", viewonly=True)


class DeliveryAttempt(Base):
    """One POST to an endpoint."""

    __tablename__ = "webhook_attempts"

    delivery_id: Mapped[str] = mapped_column(ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    status: Mapped[int | None]  #: of HTTP
    error: Mapped[str | None]  #: code of what went wrong
    detail: Mapped[str | None]  #: the same in a sentence
    ms: Mapped[int | None]  #: milliseconds that it took; NULL: it still runs, or its sender died
