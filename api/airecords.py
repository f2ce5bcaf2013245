"""A job as its owner sees it; the links to its pictures are made here, when it is read, and nowhere else."""

from __future__ import annotations

import re
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from api.farm import Farm
from fluxfarm.airecord import AiRecord, AiRecordDetail, AttemptRecord, Batch, Links, Parameter, Problem, Progress
from fluxfarm.errors import InvalidField
from fluxfarm.jobs import Lane
from storage.presenting import presigned
from storage.records import Attempt, Job

CURSOR: Final = "^c[0-9]{1,18}$"  #: the form of a cursor, with the letter of its version


class JobReply(BaseModel):
    """One job."""

    model_config = ConfigDict(populate_by_name=True)

    ai_record: AiRecord = Field(alias="aiRecord")


class JobPage(BaseModel):
    """Some jobs, the newest first."""

    model_config = ConfigDict(populate_by_name=True)

    data: list[AiRecord]
    next_cursor: str | None = Field(
        alias="nextCursor", description="Give it as `cursor` to get the next page; null: there is none."
    )


def links(farm: Farm, job: Job) -> list[str]:
    """Temporary URLs of the job's pictures, in their order."""
    return [presigned(farm.store, farm.settings, image) for image in job.images]


def job_url(farm: Farm, job: Job) -> str:
    """Where the job is read."""
    return f"{farm.settings.base_url}/v1/jobs/{job.uuid}"


def ai_record(farm: Farm, job: Job) -> AiRecord:
    """The aiRecord of a job."""
    urls = links(farm, job)
    return AiRecord(
        uuid=job.uuid,
        model=job.model,
        type=job.type,
        status=job.status,
        created_at=job.created_at,
        ai_record_detail=AiRecordDetail(
            prompt_object=job.prompt_object, result_object=[image.object_key for image in job.images]
        ),
        temporary_url=urls[0] if urls else None,
        temporary_urls=urls,
        progress=Progress(step=job.step or 0, steps=job.steps),
        attempts=[_attempt(attempt) for attempt in job.attempts],
        error=job.problem,
        erased=job.erased,
        cost=job.cost,
        links=_links(farm, job),
        lane=list(Lane)[job.lane],
        campaign=job.campaign or None,
        tags=job.tags,
        external_id=job.external_id,
        revised_prompt=job.revised_prompt,
        retry_of=job.retry_of,
        webhook=job.webhook_id,
        deadline=job.deadline,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def _attempt(attempt: Attempt) -> AttemptRecord:
    return AttemptRecord(
        number=attempt.number,
        provider=attempt.provider,
        model=attempt.model,
        worker=attempt.worker,
        model_revision=attempt.model_revision,
        status=attempt.status,
        seeds=attempt.seeds,
        effective=attempt.effective,
        ignored=attempt.ignored,
        parameters={name: Parameter.model_validate(one) for name, one in (attempt.parameters or {}).items()},
        device=attempt.device,
        batch=None if attempt.batch is None else Batch.model_validate(attempt.batch),
        timings=attempt.timings,
        cost=attempt.cost,
        error=None if attempt.error is None else Problem.model_validate(attempt.error),
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
    )


def _links(farm: Farm, job: Job) -> Links:
    here = job_url(farm, job)
    return Links(
        self_=here,
        cancel=f"{here}/cancel",
        events=f"{here}/events",
        explain=f"{here}/explain",
        assets=[f"{farm.settings.base_url}/v1/assets/{job.uuid}/{image.n}" for image in job.images],
    )


def make_cursor(seq: int | None) -> str | None:
    """Where the next page starts, as an opaque word."""
    return None if seq is None else f"c{seq}"


def read_cursor(cursor: str | None) -> int | None:
    """The place that a cursor names.

    Raises:
        InvalidField: no cursor of this farm.
    """
    if cursor is None:
        return None
    if not re.fullmatch(CURSOR, cursor):
        raise InvalidField("cursor is not one that this farm gave out; take nextCursor as it is.", param="cursor")
    return int(cursor[1:])
