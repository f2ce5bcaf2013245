"""The tables of campaigns: what was asked, each file to deliver with the job that draws it, and what people said of it.

No state is stored: it is counted from the jobs. Only the wish is kept, as nothing else could say it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from storage.records import Base


class Campaign(Base):
    """One campaign of a tenant; its jobs carry its name."""

    __tablename__ = "campaigns"
    __table_args__ = (
        CheckConstraint("wish IN ('wait','run','pause','cancel')", name="wish"),
        UniqueConstraint("tenant_id", "name"),
        Index("ix_campaigns_held", "tenant_id", "name", postgresql_where=text("wish <> 'run'")),
        Index("ix_campaigns_tenant", "tenant_id", "created_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    name: Mapped[str]
    digest: Mapped[bytes]  #: of the specification with its rows and the content of its references
    spec: Mapped[dict[str, Any]]  #: without the rows
    references: Mapped[dict[str, Any]]  #: what each reference text became: object key, width, height
    arithmetic: Mapped[str]  #: how its first count came about
    wish: Mapped[str]  #: wait (for somebody to start it), run, pause, cancel
    webhook_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CampaignAsset(Base):
    """One file to deliver; two files may be the same picture, and then share a job."""

    __tablename__ = "campaign_assets"
    __table_args__ = (UniqueConstraint("campaign_id", "name"), Index(None, "job_uuid"))

    campaign_id: Mapped[UUID] = mapped_column(ForeignKey("campaigns.id", ondelete="CASCADE"), primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]  #: with its folders and extension
    is_draft: Mapped[bool]
    draft_n: Mapped[int | None]  #: of a master: the draft that was picked
    row: Mapped[int]  #: 0 without rows
    key: Mapped[str]
    locale: Mapped[str]
    placement: Mapped[str]
    variant: Mapped[int]
    seed: Mapped[int] = mapped_column(BigInteger)
    values: Mapped[dict[str, Any]]  #: what its name took from the row
    job_uuid: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.uuid", ondelete="SET NULL"))  #: the latest job


class ShareLink(Base):
    """Leave to see a campaign's files without a key, for a time; only the token's SHA-256 is kept."""

    __tablename__ = "share_links"
    __table_args__ = (Index(None, "campaign_id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    campaign_id: Mapped[UUID] = mapped_column(ForeignKey("campaigns.id", ondelete="CASCADE"))
    digest: Mapped[bytes] = mapped_column(unique=True)
    only: Mapped[str]  #: which files, as for an export
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    opened: Mapped[int] = mapped_column(server_default=text("0"))  #: how often it was used
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CampaignReview(Base):
    """What somebody said of a picture; nothing here is ever changed."""

    __tablename__ = "campaign_reviews"
    __table_args__ = (
        CheckConstraint("verdict IN ('approve','reject','comment','regenerate','withdraw')", name="verdict"),
        Index(None, "campaign_id", "n", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    campaign_id: Mapped[UUID] = mapped_column(ForeignKey("campaigns.id", ondelete="CASCADE"))
    n: Mapped[int]
    job_uuid: Mapped[UUID | None]  #: the job whose picture was looked at; no foreign key: the words outlive it
    verdict: Mapped[str]
    comment: Mapped[str]
    author: Mapped[str]  #: the name of the API key, or what the caller says
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
