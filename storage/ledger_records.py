"""The tables of money: what every job reserved, paid and gave back, and where each tenant and campaign stands."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from storage.records import Base


class Balance(Base):
    """Where a tenant (the empty campaign) or one of its campaigns stands; the sums of its entries, and its cap."""

    __tablename__ = "balances"
    __table_args__ = (CheckConstraint("reserved >= 0 AND spent >= 0", name="not_negative"),)

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    campaign: Mapped[str] = mapped_column(primary_key=True)  #: empty: the tenant as a whole
    cap: Mapped[Decimal | None]  #: USD that may be reserved and spent together; NULL: any
    reserved: Mapped[Decimal] = mapped_column(server_default=text("0"))
    spent: Mapped[Decimal] = mapped_column(server_default=text("0"))


class LedgerEntry(Base):
    """One move of money; entries are added and never changed. No foreign key to the job: it may be erased."""

    __tablename__ = "ledger_entries"
    __table_args__ = (
        CheckConstraint("kind IN ('reserve','release','settle')", name="kind"),
        CheckConstraint("amount > 0", name="positive"),
        Index(None, "job_uuid"),
        Index(None, "tenant_id", "created_at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    campaign: Mapped[str]
    job_uuid: Mapped[UUID]
    kind: Mapped[str]
    amount: Mapped[Decimal]  #: USD
    provider: Mapped[str] = mapped_column(server_default=text("''"))  #: of a settle: who was paid
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
