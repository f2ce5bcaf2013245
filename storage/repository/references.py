"""Uploaded reference pictures."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fluxfarm.errors import NotFound
from storage.campaign_records import Campaign
from storage.records import Job, Reference
from storage.retention_records import Leftover


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


def renew(session: Session, tenant_id: UUID, reference_id: str) -> Reference | None:
    """The reference as if it were uploaded now: it is kept as long as a new one. None: it is gone."""
    own = (Reference.tenant_id == tenant_id, Reference.id == reference_id)
    return session.scalars(
        update(Reference).where(*own).values(created_at=func.now()).returning(Reference)
    ).one_or_none()


def erase(session: Session, tenant_id: UUID, reference_id: str) -> None:
    """Forget an uploaded reference; its picture goes when no open job and no campaign needs it.

    Raises:
        NotFound: no such reference, or somebody else's.
    """
    own = (Reference.tenant_id == tenant_id, Reference.id == reference_id)
    key = session.scalar(delete(Reference).where(*own).returning(Reference.object_key))
    if key is None:
        raise NotFound("There is no such reference.")
    noted = insert(Leftover).values(path=key, tenant_id=tenant_id)
    session.execute(noted.on_conflict_do_update(index_elements=["path"], set_={"since": func.now()}))


def gone(session: Session, campaign: Campaign, old: Job) -> bool:
    """Whether a picture that the job of the campaign was made from is kept no longer."""
    keys = set(old.render_request.references) - {one["key"] for one in campaign.references.values()}
    if not keys:
        return False
    own = (Reference.tenant_id == old.tenant_id, Reference.object_key.in_(keys))
    return set(session.scalars(select(Reference.object_key).where(*own))) != keys


def find(session: Session, tenant_id: UUID, ids: Iterable[str]) -> dict[str, Reference]:
    """Those of the ids that the tenant owns."""
    wanted = list(ids)
    if not wanted:
        return {}
    rows = session.scalars(select(Reference).where(Reference.tenant_id == tenant_id, Reference.id.in_(wanted)))
    return {row.id: row for row in rows}
