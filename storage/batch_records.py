"""The tables of OpenAI's batches: the files that callers send, the batches, and what became of each of their lines."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from storage.records import Base


class BatchFile(Base):
    """A JSON Lines file as it came."""

    __tablename__ = "batch_files"
    __table_args__ = (Index(None, "tenant_id", "created_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)  #: file- and 22 random letters
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    filename: Mapped[str]
    purpose: Mapped[str]
    body: Mapped[bytes] = mapped_column(deferred=True)
    size_bytes: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Batch(Base):
    """Many calls of one endpoint; its jobs carry its id as their campaign, and its state is counted from them."""

    __tablename__ = "batches"
    __table_args__ = (Index(None, "tenant_id", "created_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)  #: batch_ and 22 random letters
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    endpoint: Mapped[str]
    input_file_id: Mapped[str]
    completion_window: Mapped[str]
    notes: Mapped[dict[str, Any]]  #: OpenAI calls it metadata
    errors: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))  #: why the file was refused
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    cancelled_at: Mapped[datetime | None]


class BatchLine(Base):
    """One call of a batch."""

    __tablename__ = "batch_lines"
    __table_args__ = (Index(None, "job_uuid"),)

    batch_id: Mapped[str] = mapped_column(ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True)
    custom_id: Mapped[str]
    job_uuid: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.uuid", ondelete="SET NULL"))
    refusal: Mapped[dict[str, Any] | None]  #: status and body of a call that became no job
