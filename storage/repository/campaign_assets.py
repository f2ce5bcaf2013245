"""The files of campaigns: which job draws each, how far they are, and which come next on a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import select, text
from sqlalchemy.orm import Session, raiseload

from fluxfarm.jobs import JobState
from storage.records import Job
from storage.repository import copying

COLUMNS: Final = (
    "campaign_id", "n", "name", "is_draft", "draft_n", "row", "key", "locale", "placement", "variant", "seed", "values",
    "job_uuid",
)  # fmt: skip
FOLLOW: Final = text(
    """
    UPDATE campaign_assets AS asset SET job_uuid = jobs.uuid
      FROM jobs WHERE jobs.uuid = ANY (:jobs) AND asset.job_uuid = jobs.retry_of
    """
)
COUNT: Final = text(
    """
    SELECT asset.is_draft, job.status, count(*) AS files
      FROM campaign_assets AS asset LEFT JOIN jobs AS job ON job.uuid = asset.job_uuid
     WHERE asset.campaign_id = :campaign_id GROUP BY asset.is_draft, job.status
    """
)
#: the last verdict on a file counts while the picture that it was given to is still the file's
VERDICT: Final = """
    (SELECT nullif(review.verdict, 'withdraw') FROM campaign_reviews AS review
      WHERE review.campaign_id = asset.campaign_id AND review.n = asset.n AND review.job_uuid = asset.job_uuid
        AND review.verdict <> 'comment'
      ORDER BY review.id DESC LIMIT 1)
"""
LISTED: Final = f"""
    SELECT asset.n, asset.name, asset.is_draft, asset.draft_n, asset.row, asset.key, asset.locale, asset.placement,
           asset.variant, asset.seed, asset.job_uuid, asset.values, job.status, job.error, job.cost, job.model,
           job.request ->> 'prompt' AS prompt, (job.request ->> 'width')::int AS width,
           (job.request ->> 'height')::int AS height, image.object_key, image.content_type, image.size_bytes,
           image.sha256, {VERDICT} AS verdict
      FROM campaign_assets AS asset
      LEFT JOIN jobs AS job ON job.uuid = asset.job_uuid
      LEFT JOIN images AS image ON image.job_uuid = asset.job_uuid AND image.n = 0
     WHERE asset.campaign_id = :campaign_id
"""  # noqa: S608 - no value is put into the text
PAGE: Final = text(
    f"""
    SELECT * FROM ({LISTED} AND asset.n > :after) AS listed
     WHERE (CAST(:status AS text) IS NULL OR status = :status)
       AND (CAST(:drafts AS boolean) IS NULL OR is_draft = :drafts)
       AND (CAST(:verdict AS text) IS NULL OR coalesce(verdict, 'none') = :verdict)
     ORDER BY n LIMIT :limit
    """  # noqa: S608
)
NAMED: Final = text(f"{LISTED} AND asset.name = ANY (:names) ORDER BY asset.n")
NUMBERED: Final = text(f"{LISTED} AND asset.n = ANY (:numbers) ORDER BY asset.n")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAsset:
    """A file to deliver, and the job that draws it."""

    n: int
    name: str
    is_draft: bool
    row: int
    key: str
    locale: str
    placement: str
    variant: int
    seed: int
    values: dict[str, str]
    job_uuid: UUID
    draft_n: int | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A file as it stands now; the last seven are None until there is a picture, or after its job was erased."""

    n: int
    name: str
    is_draft: bool
    draft_n: int | None
    row: int
    key: str
    locale: str
    placement: str
    variant: int
    seed: int
    job_uuid: UUID | None
    values: dict[str, str]
    status: str | None
    error: dict[str, Any] | None
    cost: Decimal | None
    model: str | None
    prompt: str | None
    width: int | None
    height: int | None
    object_key: str | None
    content_type: str | None
    size_bytes: int | None
    sha256: str | None
    verdict: str | None

    @property
    def has_picture(self) -> bool:
        """Whether there is something to deliver."""
        return self.object_key is not None


@dataclass(frozen=True, slots=True)
class Count:
    """How many files are in one state; None: their job was erased."""

    is_draft: bool
    status: JobState | None
    files: int


def add(session: Session, campaign_id: UUID, new: Iterable[NewAsset]) -> None:
    """Store files; their jobs must be there."""
    copying.copy_rows(
        session,
        "campaign_assets",
        COLUMNS,
        (
            (
                campaign_id, one.n, one.name, one.is_draft, one.draft_n, one.row, one.key, one.locale, one.placement,
                one.variant, one.seed, Jsonb(one.values), one.job_uuid,
            )
            for one in new
        ),
    )  # fmt: skip


def follow(session: Session, retries: Sequence[UUID]) -> None:
    """The files of jobs that were tried again are drawn by the retries now, whoever asked for them."""
    if retries:
        session.execute(FOLLOW, {"jobs": list(retries)})


def point(session: Session, campaign_id: UUID, files: Sequence[int], job: UUID, seed: int) -> None:
    """Another job draws these files from now on, with this seed."""
    session.execute(
        text(
            "UPDATE campaign_assets SET job_uuid = :job, seed = :seed"
            " WHERE campaign_id = :campaign_id AND n = ANY (:files)"
        ),
        {"campaign_id": campaign_id, "files": list(files), "job": job, "seed": seed},
    )


def jobs_of(session: Session, tenant_id: UUID, files: Iterable[Listed]) -> dict[UUID, Job]:
    """The jobs that draw the files, without attempts and images."""
    wanted = {one.job_uuid for one in files if one.job_uuid is not None}
    query = select(Job).where(Job.tenant_id == tenant_id, Job.uuid.in_(wanted)).options(raiseload("*"))
    return {job.uuid: job for job in session.scalars(query)}


def taken(session: Session, campaign_id: UUID, names: Sequence[str]) -> set[str]:
    """Those of the names that are in use, in whatever case."""
    query = text("SELECT name FROM campaign_assets WHERE campaign_id = :campaign_id AND lower(name) = ANY (:names)")
    rows = session.scalars(query, {"campaign_id": campaign_id, "names": [name.lower() for name in names]})
    return {name.lower() for name in rows}


def count(session: Session, campaign_id: UUID) -> list[Count]:
    """How many files are in which state."""
    rows = session.execute(COUNT, {"campaign_id": campaign_id})
    return [Count(row.is_draft, None if row.status is None else JobState(row.status), row.files) for row in rows]


def totals(session: Session, campaign_id: UUID) -> dict[JobState | None, int]:
    """How many files are in each state, drafts and masters taken together; None: their job was erased."""
    sums: dict[JobState | None, int] = {}
    for one in count(session, campaign_id):
        sums[one.status] = sums.get(one.status, 0) + one.files
    return sums


def page(
    session: Session,
    campaign_id: UUID,
    *,
    after: int = -1,
    limit: int = 1000,
    status: str | None = None,
    drafts: bool | None = None,
    verdict: str | None = None,
) -> list[Listed]:
    """The next files in their order; ``verdict`` may be ``none``."""
    asked = {"campaign_id": campaign_id, "after": after, "limit": limit}
    rows = session.execute(PAGE, asked | {"status": status, "drafts": drafts, "verdict": verdict})
    return [Listed(*row) for row in rows]


def named(session: Session, campaign_id: UUID, names: Sequence[str]) -> list[Listed]:
    """The files of these names."""
    return [Listed(*row) for row in session.execute(NAMED, {"campaign_id": campaign_id, "names": list(names)})]


def numbered(session: Session, campaign_id: UUID, numbers: Sequence[int]) -> list[Listed]:
    """The files of these numbers."""
    return [Listed(*row) for row in session.execute(NUMBERED, {"campaign_id": campaign_id, "numbers": list(numbers)})]


def next_number(session: Session, campaign_id: UUID) -> int:
    """The number of the next file."""
    query = text("SELECT coalesce(max(n) + 1, 0) FROM campaign_assets WHERE campaign_id = :campaign_id")
    return int(session.scalar(query, {"campaign_id": campaign_id}) or 0)
