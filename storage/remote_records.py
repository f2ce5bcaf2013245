"""The tables of remote providers: paid calls, the tenants' own keys, and webhooks that came in."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, SmallInteger, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from storage.records import Base, Json


class RemoteCall(Base):
    """One paid call: committed as an intent before its POST, with its ticket before the first poll.

    No foreign key to the job: a job may be erased while its call still runs, and money hangs on it. It holds no prompt.
    """

    __tablename__ = "remote_calls"
    __table_args__ = (
        CheckConstraint("state IN ('intended','submitted','done','failed','unknown')", name="state"),
        Index(None, "job_uuid"),
        Index("ix_remote_calls_open", "created_at", postgresql_where=text("state IN ('intended','submitted')")),
    )

    nonce: Mapped[UUID] = mapped_column(primary_key=True)
    job_uuid: Mapped[UUID]
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    attempt: Mapped[int]  #: that made it; a later one may take it over
    images: Mapped[list[int]] = mapped_column(ARRAY(SmallInteger))  #: their numbers in the job
    provider: Mapped[str]
    account: Mapped[str]  #: whose key pays: operator or tenant
    model: Mapped[str]
    price: Mapped[Decimal]  #: USD that are reserved for it
    state: Mapped[str] = mapped_column(server_default=text("'intended'"))
    hooked: Mapped[bool] = mapped_column(server_default=text("false"))  #: the provider was given a webhook's URL
    ticket: Mapped[dict[str, Any] | None]
    #: pictures that cannot be asked for again, stored beside the job's references: ``n``, ``key`` and ``seed`` of each
    kept: Mapped[list[dict[str, Any]] | None] = mapped_column(Json)
    cost: Mapped[Decimal | None]  #: USD, as the provider reported it, else the price
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    submitted_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class ProviderAccount(Base):
    """A tenant's own key at a provider, sealed; it is never shown again."""

    __tablename__ = "provider_accounts"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    provider: Mapped[str] = mapped_column(primary_key=True)
    sealed: Mapped[str]
    hint: Mapped[str]  #: the last characters, to tell keys apart
    account_id: Mapped[str] = mapped_column(server_default=text("''"))  #: Cloudflare's
    version: Mapped[int] = mapped_column(SmallInteger, server_default=text("1"))  #: counts its rotations
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    changed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class InboundEvent(Base):
    """A provider's webhook that was taken; the same one again changes nothing."""

    __tablename__ = "inbound_events"
    __table_args__ = (Index(None, "received_at"),)

    provider: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    nonce: Mapped[UUID]
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())
