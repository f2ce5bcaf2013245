"""Pictures that were made, the newest first: what a wall of them needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from fluxfarm.jobs import JobState
from storage.records import Image, Job
from storage.repository.jobs import Filter, filtered

SHOWN: Final = (
    Job.seq, Job.uuid, Image.n, Image.width, Image.height, Job.request["prompt"].astext.label("prompt"), Job.campaign,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One picture."""

    seq: int  #: of its job; the place where the next page starts
    uuid: UUID
    n: int
    width: int
    height: int
    prompt: str
    campaign: str


def page(
    session: Session, tenant_id: UUID, wanted: Filter, *, before: int | None, limit: int
) -> tuple[list[Shown], int | None]:
    """The pictures of at most ``limit`` jobs that are older than ``before``, and where the next page starts.

    A job whose pictures were deleted by the rules of retention counts, and shows nothing.
    """
    jobs = filtered(select(Job.seq), tenant_id, wanted).where(Job.status == JobState.SUCCESS)
    if before is not None:
        jobs = jobs.where(Job.seq < before)
    newest = session.scalars(jobs.order_by(Job.seq.desc()).limit(limit + 1)).all()
    rows: Any = session.execute(
        select(*SHOWN)
        .join(Image, Image.job_uuid == Job.uuid)
        .where(Job.tenant_id == tenant_id, Job.seq.in_(newest[:limit]))
        .order_by(Job.seq.desc(), Image.n)
    )
    return [Shown(**row) for row in rows.mappings()], newest[limit - 1] if len(newest) > limit else None
