"""Jobs: found, looked at, stopped, tried again, erased."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Final
from urllib.parse import urlencode
from uuid import UUID

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from api import retry
from api.airecords import ai_record, make_cursor, read_cursor
from api.dashboard import pages, plots
from api.dashboard.pictures import Number
from api.dashboard.plots import Share
from api.dashboard.visitors import Visitor, VisitorPart
from api.routes import jobs as native
from api.routes.progress import explanation
from fluxfarm.airecord import AttemptRecord
from fluxfarm.catalog import MODELS
from fluxfarm.errors import NotFound
from fluxfarm.jobs import JobState
from storage.provenance import Findings
from storage.records import Job
from storage.repository import images, jobs
from storage.repository.jobs import Filter

PAGE: Final = 40
TEXT: Final = r"^[^\x00]*$"  #: the database holds no NUL
#: what the stages are called, in their order
STAGES: Final = (
    ("queue", "waited"),
    ("load", "model loaded"),
    ("encode_prompt", "prompt read"),
    ("render", "denoised and decoded"),
    ("encode", "encoded and marked"),
    ("upload", "stored"),
)

router = APIRouter(prefix="/jobs")


class Wanted(BaseModel):
    """What a visitor looks for; an empty field is any."""

    model_config = ConfigDict(extra="ignore")

    q: str = Field("", max_length=200, pattern=TEXT)
    status: str = Field("", pattern="^[A-Z]*$", max_length=16)
    model: str = Field("", max_length=200, pattern=TEXT)
    campaign: str = Field("", max_length=200, pattern=TEXT)
    tag: str = Field("", max_length=64, pattern=TEXT)
    cursor: str | None = Field(None, max_length=64)

    def filter(self) -> Filter:
        """The same for a listing; a state that does not exist is any."""
        return Filter(
            status=JobState(self.status) if self.status in set(JobState) else None,
            model=self.model or None,
            campaign=self.campaign or None,
            tag=self.tag or None,
            words=self.q.strip() or None,
        )

    def link(self, **changes: str | None) -> str:
        """The address of this listing, with changes."""
        asked = self.model_dump() | {"cursor": None} | changes
        return urlencode({name: value for name, value in asked.items() if value})


@router.get("")
def list_jobs(request: Request, visitor: VisitorPart, wanted: Annotated[Wanted, Query()]) -> Response:
    """The newest first."""
    if (uuid := _uuid(wanted.q)) is not None:
        return pages.go(f"/jobs/{uuid}")
    before = read_cursor(wanted.cursor)
    with visitor.looking() as looking:
        tenant_id = looking.caller.tenant_id
    found = visitor.read(lambda session: jobs.list_page(session, tenant_id, wanted.filter(), before=before, limit=PAGE))
    following = make_cursor(found.next_before)
    return pages.page(
        request,
        "jobs.html",
        looking,
        jobs=found.jobs,
        wanted=wanted,
        following=None if following is None else wanted.link(cursor=following),
        models=MODELS,
        searched=jobs.SEARCHED,
    )


@router.get("/{uuid}")
def read_job(request: Request, visitor: VisitorPart, uuid: UUID) -> Response:
    """A job with all that is known of it."""
    with visitor.looking() as looking:
        job = jobs.read(looking.session, looking.caller.tenant_id, uuid)
        found = explanation(looking.session, job)
        record = ai_record(visitor.farm, job)
        shown = record.model_dump(mode="json", by_alias=True)
        for name in ("temporaryUrl", "temporaryUrls"):  # they expire, and would be copied from here
            shown.pop(name)
        return pages.page(
            request,
            "job.html",
            looking,
            job=job,
            record=record,
            explanation=found,
            images=job.images,
            spans=_spans(job, record.attempts),
            record_json=json.dumps(shown, indent=2, ensure_ascii=False),
        )


def _spans(job: Job, attempts: Sequence[AttemptRecord]) -> list[Share]:
    """Where the time of the last attempt went."""
    if not attempts or not attempts[-1].timings:
        return []
    last = attempts[-1]
    known = dict(last.timings)
    if job.started_at is not None and "queue" not in known:
        known["queue"] = (job.started_at - job.created_at).total_seconds()
    return plots.shares([(word, known.get(name, 0.0)) for name, word in STAGES])


@router.post("/{uuid}/cancel")
def cancel(visitor: VisitorPart, uuid: UUID) -> Response:
    """Stop it."""
    native.cancel_job(visitor.farm, visitor.secret, uuid)
    return pages.go(f"/jobs/{uuid}")


@router.post("/{uuid}/retry")
def try_again(visitor: VisitorPart, uuid: UUID) -> Response:
    """Make a new job of it, and go there."""
    accepted = retry.retry(visitor.farm, visitor.secret, uuid, None)
    return pages.go(f"/jobs/{accepted.job.uuid}")


@router.post("/{uuid}/erase")
def erase(visitor: VisitorPart, uuid: UUID) -> Response:
    """Erase it with its prompt and pictures."""
    native.erase_job(visitor.farm, visitor.secret, uuid)
    return pages.go("/jobs")


@router.get("/{uuid}/provenance/{n}")
async def provenance(request: Request, visitor: VisitorPart, uuid: UUID, n: Number) -> Response:
    """What the stored picture says of its making, and whether that is true."""
    key = await run_in_threadpool(_object_key, visitor, uuid, n)
    found = await to_thread.run_sync(_inspect, visitor, key, limiter=visitor.farm.pictures)
    return await run_in_threadpool(_provenance_page, request, visitor, uuid, n, found)


def _object_key(visitor: Visitor, uuid: UUID, n: int) -> str:
    with visitor.looking() as looking:
        image = images.read(looking.session, looking.caller.tenant_id, uuid, n)
    if image is None:
        raise NotFound(f"Job {uuid} has no picture {n}.")
    return image.object_key


def _inspect(visitor: Visitor, object_key: str) -> Findings:
    return visitor.farm.provenance.inspect(visitor.farm.store.get(object_key))


def _provenance_page(request: Request, visitor: Visitor, uuid: UUID, n: int, found: Findings) -> Response:
    with visitor.looking() as looking:
        return pages.page(request, "provenance.html", looking, uuid=uuid, n=n, found=found)


def _uuid(text: str) -> Any:
    try:
        return UUID(text.strip())
    except ValueError:
        return None
