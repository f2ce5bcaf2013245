"""The aiRecord: the JSON form of a job, as callers see it; shared by the API, the client and the command line."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

from fluxfarm.jobs import JobState, JobType, Lane


def milliseconds(moment: datetime) -> str:
    """The moment as RFC 3339 in UTC, to the millisecond."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


Moment = Annotated[datetime, PlainSerializer(milliseconds, return_type=str, when_used="json")]
Usd = Annotated[Decimal, PlainSerializer(str, return_type=str, when_used="json")]


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class Problem(_Part):
    """Why a job or an attempt ended badly: a stable code, a sentence, and whether trying again can help."""

    code: str
    message: str
    retryable: bool


class Progress(_Part):
    """Denoising steps done of all steps of all images."""

    step: int
    steps: int


class Parameter(_Part):
    """What a remote provider was given for a parameter: ``target`` is its own name or form of it."""

    behaviour: str  #: renamed, converted, emulated or ignored
    target: str = ""


class Batch(_Part):
    """The call of the pipeline that drew the pictures, when it drew others too: they may move a value by rounding."""

    position: int  #: of the job's first picture in that call
    size: int  #: pictures in that call
    leader: UUID | None = None  #: the job whose turn it was; null where that is another tenant's


class AttemptRecord(_Part):
    """One start of the job: who rendered it, with what, how long it took and how it ended."""

    number: int
    provider: str
    model: str | None = None  #: not the job's, where the caller allowed another
    worker: str | None
    model_revision: str | None
    status: JobState
    seeds: list[int]
    effective: dict[str, Any]
    ignored: list[str]
    parameters: dict[str, Parameter] = {}  #: what became of each that was sent, where it was not simply passed through
    device: dict[str, Any] | None = None  #: kernels in use, and the memory, load and power that it took
    batch: Batch | None = None  #: null: the pictures were drawn one by one
    timings: dict[str, float]  #: seconds: queue, load, encode_prompt, render, first_byte, encode, upload
    cost: Usd | None
    error: Problem | None
    started_at: Moment
    ended_at: Moment | None


class AiRecordDetail(_Part):
    """What was asked, as it came, and the keys of what was made."""

    prompt_object: dict[str, Any]
    result_object: list[str]


class Links(_Part):
    """Where to go from here; absolute URLs."""

    self_: str = Field(alias="self")
    cancel: str
    events: str
    explain: str
    assets: list[str]


class AiRecord(_Part):
    """A job: the seeds' fields under their own names, and what the farm adds beside them."""

    uuid: UUID
    model: str
    type: JobType
    status: JobState
    created_at: Moment
    ai_record_detail: AiRecordDetail
    temporary_url: str | None
    temporary_urls: list[str]
    progress: Progress
    attempts: list[AttemptRecord]
    error: Problem | None
    cost: Usd
    links: Links
    lane: Lane
    campaign: str | None
    tags: list[str]
    erased: list[str] = []  #: what is kept no longer: prompt, references, results
    external_id: str | None  #: the caller's own name of the job
    webhook: str | None = None  #: the endpoint that is told of the end
    revised_prompt: str | None = None  #: what was rendered, when the prompt was upsampled
    retry_of: UUID | None  #: the job that this one tries again
    deadline: Moment | None
    started_at: Moment | None
    finished_at: Moment | None
