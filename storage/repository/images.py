"""The pictures that jobs made."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.records import Image, Job


def made_by(session: Session, tenant_id: UUID, sha256: str) -> UUID | None:
    """The tenant's job that stored this very file (SHA-256 in hex); None: none of its jobs did."""
    return session.scalar(
        select(Job.uuid)
        .join(Image, Image.job_uuid == Job.uuid)
        .where(Image.sha256 == sha256, Job.tenant_id == tenant_id)
        .limit(1)
    )


def read(session: Session, tenant_id: UUID, uuid: UUID, n: int) -> Image | None:
    """Picture ``n`` of the tenant's job; None: there is none."""
    return session.scalar(
        select(Image)
        .join(Job, Job.uuid == Image.job_uuid)
        .where(Image.job_uuid == uuid, Image.n == n, Job.tenant_id == tenant_id)
    )
