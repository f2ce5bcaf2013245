"""Uploaded reference pictures."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.records import Reference


def create(session: Session, reference: Reference) -> Reference:
    """Keep an uploaded reference."""
    session.add(reference)
    session.flush()
    session.refresh(reference)
    return reference


def find_same(session: Session, tenant_id: UUID, sha256: str) -> Reference | None:
    """A reference of the tenant with this very content: uploading a picture again makes no second one."""
    query = select(Reference).where(Reference.tenant_id == tenant_id, Reference.sha256 == sha256)
    return session.scalars(query.order_by(Reference.created_at).limit(1)).first()


def find(session: Session, tenant_id: UUID, ids: Iterable[str]) -> dict[str, Reference]:
    """Those of the ids that the tenant owns."""
    wanted = list(ids)
    if not wanted:
        return {}
    rows = session.scalars(select(Reference).where(Reference.tenant_id == tenant_id, Reference.id.in_(wanted)))
    return {row.id: row for row in rows}
