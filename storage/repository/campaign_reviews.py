"""What people say of a campaign's pictures: only ever added to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from storage.campaign_records import CampaignReview
from storage.repository.campaign_assets import Listed

HISTORY: Final = text(
    """
    SELECT review.id, asset.name, review.job_uuid, review.verdict, review.comment, review.author, review.created_at
      FROM campaign_reviews AS review
      JOIN campaign_assets AS asset ON asset.campaign_id = review.campaign_id AND asset.n = review.n
     WHERE review.campaign_id = :campaign_id AND review.id > :after
       AND (CAST(:name AS text) IS NULL OR asset.name = :name)
     ORDER BY review.id LIMIT :limit
    """
)


@dataclass(frozen=True, slots=True)
class Said:
    """One word on one picture."""

    id: int
    name: str
    job_uuid: UUID | None
    verdict: str
    comment: str
    author: str
    created_at: datetime


def add(
    session: Session, campaign_id: UUID, files: Sequence[Listed], *, verdict: str, comment: str, author: str
) -> None:
    """Say it of the pictures that the files have now."""
    session.add_all(
        CampaignReview(
            campaign_id=campaign_id, n=one.n, job_uuid=one.job_uuid, verdict=verdict, comment=comment, author=author
        )
        for one in files
    )
    session.flush()


def history(session: Session, campaign_id: UUID, *, name: str | None, after: int, limit: int) -> list[Said]:
    """What was said, the oldest first; of one file or of all."""
    asked = {"campaign_id": campaign_id, "name": name, "after": after, "limit": limit}
    return [Said(*row) for row in session.execute(HISTORY, asked)]
