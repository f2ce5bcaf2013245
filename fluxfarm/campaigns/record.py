"""A campaign and its plan as callers see them; shared by the API, the client and the command line."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from fluxfarm.airecord import Moment, Problem, Usd
from fluxfarm.errors import Canceled
from fluxfarm.jobs import JobState

CAMPAIGN_CANCELED: Final = Problem(code=Canceled.code, message="The job's campaign was canceled.", retryable=False)


class CampaignState(StrEnum):
    """Counted from the jobs and the owner's wish; never stored."""

    DRAFT = "draft"  #: stored, and waits for somebody to start it
    RUNNING = "running"
    PAUSED = "paused"  #: nothing new starts
    DONE = "done"  #: every job is over
    CANCELLED = "cancelled"


def state_of(wish: str, open_jobs: int) -> CampaignState:
    """The state that follows from the wish and from how many jobs are not over."""
    if wish == "cancel":
        return CampaignState.CANCELLED
    if not open_jobs:
        return CampaignState.DONE
    return {"wait": CampaignState.DRAFT, "pause": CampaignState.PAUSED}.get(wish, CampaignState.RUNNING)


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class Counts(_Part):
    """Files, by the state of the job that draws each."""

    total: int = 0
    queued: int = 0
    running: int = 0
    success: int = 0
    failed: int = 0
    canceled: int = 0
    erased: int = Field(0, description="Their job was deleted.")

    @property
    def over(self) -> int:
        """Those to which nothing more will happen."""
        return self.total - self.queued - self.running


class Eta(_Part):
    """When it will be done, from what renders of this queue took so far."""

    p50: Moment
    p90: Moment = Field(description="As if every render were as slow as the slowest tenth.")
    measured: int = Field(description="How many renders this rests on.")


class CampaignRecord(_Part):
    """A campaign as it stands now."""

    id: UUID
    name: str
    state: CampaignState
    model: str
    created_at: Moment
    arithmetic: str = Field(description="How the count came about.")
    files: Counts = Field(description="Masters, or all files of a campaign without drafts.")
    drafts: Counts | None = Field(description="Only of a campaign with drafts.")
    spent: Usd = Field(description="USD, with all retries.")
    reserved: Usd = Field(Decimal(0), description="USD that jobs which are not over may still cost.")
    budget: Usd | None
    images_per_minute: int = Field(description="Pictures that were finished in the last minute.")
    gpu_seconds_left: float
    eta: Eta | None = Field(description="null: done, held, or no worker or measurement to go by.")
    deadline: Moment | None
    review: bool
    started_at: Moment | None
    finished_at: Moment | None


class AssetRecord(_Part):
    """One file of a campaign."""

    name: str
    status: JobState | None = Field(description="Of its job; null: the job was erased.")
    verdict: str | None = Field(description="`approve`, `reject` or `regenerate`: the last word on this very picture.")
    draft: bool
    row: int
    key: str
    locale: str
    placement: str
    variant: int
    seed: int
    prompt: str | None
    width: int | None
    height: int | None
    job: UUID | None
    url: str | None = Field(description="A link to the picture that never dies; it needs a key.")
    error: Problem | None


class Route(_Part):
    """What the whole campaign would take one way."""

    provider: str
    available: bool = Field(description="Whether this farm is set up for it.")
    gpu_seconds: float | None
    usd: Usd | None = Field(description="null: the farm's own GPUs have no price.")
    note: str


class RowWarning(_Part):
    """What is to be known of some rows."""

    param: str = Field(description="The field of the specification that it is about.")
    message: str
    rows: list[int] = Field(description="The first ten; 0 is a campaign without rows.")
    total: int = Field(description="How many rows in all.")


class Plan(_Part):
    """What a campaign would do, before anything of it exists."""

    name: str
    exists: bool = Field(description="This very campaign has been made before; running it makes no second one.")
    model: str
    arithmetic: str
    files: int
    renders: int = Field(description="Pictures to draw: files without those that are the same picture.")
    duplicates: int
    drafts: bool = Field(description="Whether these are drafts.")
    sizes: dict[str, str] = Field(description="Of each placement, in pixels.")
    seeds: list[int]
    gpu_seconds: float
    routes: list[Route]
    budget: Usd | None
    eta: Eta | None
    eta_note: str
    deadline: Moment | None
    warnings: list[str]
    row_warnings: list[RowWarning] = Field(default_factory=list)
    prompts: list[str] = Field(description="The first ten, rendered.")
    names: list[str] = Field(description="The first ten file names.")
