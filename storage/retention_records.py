"""The tables of retention: how far each tenant's jobs were looked through, and objects that are to go."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from storage.records import Base


class RetentionMark(Base):
    """The last job of a tenant, by its end, of which one kind of content was erased; the next round goes on there."""

    __tablename__ = "retention_marks"
    __table_args__ = (CheckConstraint("kind IN ('prompt','references','results','record')", name="kind"),)

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    finished_at: Mapped[datetime] = mapped_column(server_default=text("'epoch'"))
    seq: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class Leftover(Base):
    """An object, or with a slash at the end a folder, that goes as soon as no open job and no campaign needs it.

    No foreign key to the tenant: what a tenant leaves behind must go, too.
    """

    __tablename__ = "leftovers"
    __table_args__ = (Index(None, "since"),)

    path: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID]
    since: Mapped[datetime] = mapped_column(server_default=func.now())
