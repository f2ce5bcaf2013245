"""Links that show a campaign's files without a key, until they expire or are revoked."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from fluxfarm.errors import LinkExpired, NotFound
from storage.campaign_records import Campaign, ShareLink

PREFIX: Final = "sh_"
TOKEN_BYTES: Final = 24  #: 192 random bits


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="backslashreplace")).digest()


def create(session: Session, campaign_id: UUID, only: str, expires_at: datetime) -> tuple[ShareLink, str]:
    """A new link, and its token, which is not kept."""
    token = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    row = ShareLink(campaign_id=campaign_id, digest=_digest(token), only=only, expires_at=expires_at)
    session.add(row)
    session.flush()
    session.refresh(row)
    return row, token


def open_link(session: Session, token: str) -> tuple[ShareLink, Campaign]:
    """The link and its campaign; counts the use.

    Raises:
        NotFound: no such link.
        LinkExpired: its time is over, or it was revoked.
    """
    row = session.execute(
        update(ShareLink)
        .where(ShareLink.digest == _digest(token), ShareLink.revoked_at.is_(None), ShareLink.expires_at > func.now())
        .values(opened=ShareLink.opened + 1)
        .returning(ShareLink)
    ).scalar_one_or_none()
    if row is None:
        if session.scalar(select(ShareLink.id).where(ShareLink.digest == _digest(token))) is None:
            raise NotFound("There is no such link.")
        raise LinkExpired("The link has expired or was revoked; ask its sender for a new one.")
    return row, session.scalars(select(Campaign).where(Campaign.id == row.campaign_id)).one()


def list_all(session: Session, campaign_id: UUID) -> list[ShareLink]:
    """Every link of a campaign, the newest first."""
    query = select(ShareLink).where(ShareLink.campaign_id == campaign_id).order_by(ShareLink.created_at.desc())
    return list(session.scalars(query))


def revoke(session: Session, campaign_id: UUID, link_id: UUID) -> None:
    """Close a link at once; repeating it changes nothing.

    Raises:
        NotFound: the campaign has no such link.
    """
    found = session.scalar(
        update(ShareLink)
        .where(ShareLink.campaign_id == campaign_id, ShareLink.id == link_id)
        .values(revoked_at=func.coalesce(ShareLink.revoked_at, func.now()))
        .returning(ShareLink.id)
    )
    if found is None:
        raise NotFound(f"The campaign has no link {link_id}.")
