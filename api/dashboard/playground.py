"""Where pictures are tried out: one form, its price before the click, and what came of the last ones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Form, Request, Response

from api.dashboard import pages
from api.dashboard.visitors import Looking, VisitorPart
from api.dialects.native import read_order
from api.farm import Farm
from api.submit import submit
from fluxfarm.catalog import MODELS, ModelProfile, find_model
from fluxfarm.errors import NotFound
from fluxfarm.jobs import JobType
from fluxfarm.remotes import LOCAL
from storage.records import Job
from storage.repository import jobs, workers
from storage.repository.jobs import Filter

TAG: Final = "playground"
SHOWN: Final = 18
RATIOS: Final = ("1:1", "4:3", "3:2", "16:9", "3:4", "2:3", "9:16")
FORMATS: Final = ("webp", "png", "jpeg", "avif")
PREVIEWS: Final = 3

router = APIRouter(prefix="/playground")


@dataclass(frozen=True, slots=True)
class Choice:
    """A model, and whether anybody can render it now."""

    profile: ModelProfile
    is_ready: bool
    is_possible: bool


@router.get("")
def show(request: Request, visitor: VisitorPart, like: UUID | None = None) -> Response:
    """The form, empty or filled in like a job."""
    farm = visitor.farm
    with visitor.looking() as looking:
        tenant_id = looking.caller.tenant_id
        example = None
        if like is not None:
            example = jobs.read(looking.session, tenant_id, like)
        history = jobs.list_page(looking.session, tenant_id, Filter(tag=TAG), before=None, limit=SHOWN).jobs
        return pages.page(
            request,
            "playground.html",
            looking,
            choices=_choices(farm, looking),
            filled=_filled(example),
            ratios=RATIOS,
            formats=FORMATS,
            providers=("auto", LOCAL, *(name for name, remote in farm.remotes.items() if remote.is_configured)),
            history=history,
            tag=TAG,
            previews=PREVIEWS,
            upload_limit=farm.settings.upload_limit,
            base_url=farm.settings.base_url,
        )


@router.post("")
async def draw(
    visitor: VisitorPart,
    model: Annotated[str, Form(max_length=200)],
    prompt: Annotated[str, Form(max_length=20_000)],
    size: Annotated[str, Form(max_length=32)] = "",
    steps: Annotated[str, Form(max_length=8)] = "",
    guidance: Annotated[str, Form(max_length=8)] = "",
    seed: Annotated[str, Form(max_length=20)] = "",
    n: Annotated[str, Form(max_length=4)] = "",
    output_format: Annotated[str, Form(max_length=8)] = "",
    provider: Annotated[str, Form(max_length=32)] = "auto",
) -> Response:
    """What the form does without a script: make the job, and go to its page."""
    asked: dict[str, Any] = {"prompt": prompt, "size": size, "output_format": output_format}
    numbers = {"num_inference_steps": steps, "seed": seed, "n": n}
    asked |= {name: int(text) if text.isdecimal() else text for name, text in numbers.items()}
    asked["guidance"] = _number(guidance)
    body = {
        "type": JobType.IMAGE_GENERATOR.value,
        "model": model,
        "promptObject": {name: value for name, value in asked.items() if value != ""},
        "provider": provider,
        "previews": PREVIEWS,
        "tags": [TAG],
    }
    accepted = await submit(visitor.farm, visitor.secret, lambda: read_order(body, datetime.now(UTC)))
    return pages.go(f"/jobs/{accepted.job.uuid}")


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _choices(farm: Farm, looking: Looking) -> list[Choice]:
    """Those first that render at once, in the order in which the farm names its models."""
    ready = {model for worker in workers.alive(looking.session) for model in worker.models}
    own = [find_model(source.slug).slug for source in farm.settings.models]
    remote = {offer.model for one in farm.remotes.values() if one.is_configured for offer in one.offers}
    found = [
        Choice(
            profile,
            is_ready=profile.slug in ready,
            is_possible=profile.slug in own or profile.slug in remote,
        )
        for profile in MODELS
    ]
    place = {slug: index for index, slug in enumerate(own)}
    return sorted(
        found, key=lambda one: (not one.is_ready, not one.is_possible, place.get(one.profile.slug, len(place)))
    )


def _filled(example: Job | None) -> dict[str, Any]:
    empty = dict.fromkeys(("prompt", "model", "size", "steps", "guidance", "seed", "format"), "")
    if example is None:
        return empty
    if not example.request.get("prompt"):
        raise NotFound("The prompt of this job is gone by the rules of retention; write a new one.")
    asked = example.render_request
    return {
        "prompt": asked.prompt,
        "model": asked.model,
        "size": f"{asked.width}x{asked.height}",
        "steps": asked.steps,
        "guidance": asked.guidance,
        "seed": asked.seeds[0],
        "format": asked.output_format,
    }
