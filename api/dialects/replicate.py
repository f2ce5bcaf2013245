"""Replicate: predictions in; out they come by ``storage.replies.replicate``, which the webhooks share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, Literal

from pydantic import Field

from api.dialects.native import read_source
from api.dialects.translation import Translation, sent, without_pictures
from api.order import MATCH_INPUT, Order, Source, Uploaded
from api.strict import Strict, read
from fluxfarm.catalog import FLEX, KLEIN_4B, KLEIN_9B, KLEIN_BASE_4B, KLEIN_BASE_9B, ModelProfile, find_model
from fluxfarm.errors import InvalidField, ModelNotFound
from fluxfarm.jobs import JobType
from fluxfarm.request import MAX_SEED
from fluxfarm.webhooks import MAX_URL, Form, Moment, Telling

EVENTS: Final = ("start", "output", "logs", "completed")
CUSTOM: Final = "custom"  #: the aspect ratio that leaves the shape to width and height
SQUARE: Final = "1:1"  #: the shape when nobody says, of edits too
KLEINS: Final = (KLEIN_4B, KLEIN_9B, KLEIN_BASE_4B, KLEIN_BASE_9B)
IGNORED: Final = ("safety_tolerance",)
DEFAULTS: Final = {model.slug: {"output_format": "jpg", "output_quality": 95} for model in KLEINS} | {
    FLEX.slug: {"num_inference_steps": 30, "guidance": 4.5}
}  #: documented there, where the catalogue says otherwise
_FILE: Final = re.compile(r"/replicate/v1/files/(ref_[0-9A-Za-z]{1,60})")
_PERIOD: Final = re.compile(r"(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,6})s)?")
_HASH: Final = re.compile(r"[0-9a-f]{64}")


class PredictionInput(Strict):
    """What to draw; the union of what the FLUX.2 models take there."""

    prompt: str
    input_images: list[str] | None = Field(None, max_length=10, description="References, as URLs or data URIs.")
    images: list[str] | None = Field(None, max_length=10, description="The same, as klein has it.")
    aspect_ratio: str | None = Field(None, max_length=32, description="`1:1` and so on, `match_input_image`, `custom`.")
    width: int | None = Field(None, ge=1, le=16_384, description="With aspect_ratio `custom` alone.")
    height: int | None = Field(None, ge=1, le=16_384, description="With aspect_ratio `custom` alone.")
    resolution: str | None = Field(None, max_length=32, description="`0.5 MP`, `1 MP`, `2 MP`, `4 MP`.")
    output_megapixels: str | None = Field(None, max_length=16)
    steps: int | None = Field(None, ge=1, le=1000)
    guidance: float | None = Field(None, ge=0, le=100)
    prompt_upsampling: bool | None = None
    go_fast: bool | None = Field(None, description="Listed as ignored.")
    disable_safety_checker: bool | None = Field(None, description="Listed as ignored.")
    safety_tolerance: int | None = Field(None, ge=1, le=6, description="Listed as ignored.")
    output_format: Literal["webp", "jpg", "png"] | None = None
    output_quality: int | None = Field(None, ge=0, le=100)
    seed: int | None = Field(None, ge=0, le=MAX_SEED)


class NewPrediction(Strict):
    """A prediction to make."""

    input: PredictionInput
    version: str | None = Field(None, max_length=200, description="A model, `owner/name` or `owner/name:version`.")
    webhook: str | None = Field(None, min_length=1, max_length=MAX_URL)
    webhook_events_filter: list[Literal["start", "output", "logs", "completed"]] | None = Field(None, max_length=4)
    stream: bool | None = Field(None, description="Pictures are not streamed; listed as ignored.")


def read_order(body: dict[str, Any], model: str | None, base_url: str) -> Order:
    """The order that a prediction asks for; ``model`` is the path's, None when ``version`` names it.

    Raises:
        BadRequest: one of its leaves, with the field at fault.
        ModelNotFound: the catalogue does not know the model.
    """
    asked = read(NewPrediction, body)
    profile = find_model(model or _model(asked.version))
    given, said = asked.input, body["input"]
    field, texts = _texts(given)
    fields = [f"input.{field}.{index}" for index in range(len(texts))]
    sources = [_source(text, name, base_url) for text, name in zip(texts, fields, strict=True)]
    return Translation(
        kind=JobType.IMAGE_EDITOR if sources else JobType.IMAGE_GENERATOR,
        profile=profile,
        asked=_asked(profile, given),
        echo=without_pictures(said, dict(zip(texts, sources, strict=True))),
        pictures=tuple(zip(fields, sources, strict=True)),
        ignored=(*sent(said, IGNORED), *sent(body, ("stream",)), *_overruled(given)),
        own={
            "num_inference_steps": "steps",
            "images": field,
            "resolution": "output_megapixels" if given.output_megapixels else "resolution",
            "size": "aspect_ratio",
        },
        where="input.",
    ).order(webhook=asked.webhook, telling=_telling(asked.webhook_events_filter or EVENTS))


def _model(version: str | None) -> str:
    if version is None:
        raise InvalidField("version is missing: it names the model, as owner/name.", param="version")
    if _HASH.fullmatch(version):
        message = "Versions are not told apart by hash here; name the model as owner/name."
        raise ModelNotFound(message, param="version")
    return version.partition(":")[0]


def _asked(profile: ModelProfile, given: PredictionInput) -> dict[str, Any]:
    custom = given.aspect_ratio == CUSTOM
    if custom and None in (given.width, given.height):
        raise InvalidField(f"aspect_ratio {CUSTOM!r} needs width and height.", param="input.width")
    found = {
        "prompt": given.prompt,
        "aspect_ratio": None if custom else given.aspect_ratio or SQUARE,
        "width": given.width if custom else None,
        "height": given.height if custom else None,
        "megapixels": None if custom else _megapixels(given),
        "num_inference_steps": given.steps,
        "guidance": given.guidance,
        "seed": given.seed,
        "output_format": given.output_format,
        "output_quality": given.output_quality,
        "prompt_upsampling": given.prompt_upsampling,
        "go_fast": given.go_fast,
        "disable_safety_checker": given.disable_safety_checker,
    }
    defaults = DEFAULTS.get(profile.slug, {})
    return found | {name: value for name, value in defaults.items() if found[name] is None}


def _telling(events: Sequence[str]) -> Telling:
    """When a webhook is told: there is no log and no output before the end, so these two events are the end's."""
    start = (Moment.START,) if "start" in events else ()
    end = (Moment.END,) if {"output", "completed"} & set(events) else ()
    return Telling(Form.REPLICATE, (*start, *end))


def file_url(base_url: str, reference: str) -> str:
    """How an uploaded picture is named in an input."""
    return f"{base_url}/replicate/v1/files/{reference}"


def _megapixels(given: PredictionInput) -> str | None:
    """The number before ``MP``; ``match_input_image`` leaves the area to the model."""
    if None not in (given.resolution, given.output_megapixels):
        message = "resolution and output_megapixels are two names of one thing; give one of them."
        raise InvalidField(message, param="input.output_megapixels")
    text = given.resolution or given.output_megapixels
    return None if text is None or text == MATCH_INPUT else text.upper().removesuffix("MP").strip()


def _overruled(given: PredictionInput) -> tuple[str, ...]:
    if given.aspect_ratio == CUSTOM:
        names: tuple[str, ...] = ("resolution", "output_megapixels")
    else:
        names = ("width", "height")
    return tuple(name for name in names if getattr(given, name) is not None)


def _texts(given: PredictionInput) -> tuple[str, list[str]]:
    """The references as they were sent, and the field that they came in."""
    if given.images and given.input_images:
        message = "images and input_images are two names of one thing; give one of them."
        raise InvalidField(message, param="input.images")
    return ("images", given.images) if given.images else ("input_images", given.input_images or [])


def _source(text: str, where: str, base_url: str) -> Source:
    uploaded = _FILE.fullmatch(text.removeprefix(base_url)) if text.startswith(base_url) else None
    return read_source(text, where) if uploaded is None else Uploaded(uploaded[1])


def read_period(text: str) -> timedelta | None:
    """``Cancel-After``: ``90s``, ``1m``, ``1h30m``; None: there is no such header.

    Raises:
        InvalidField: no period, or one outside 5 seconds to 24 hours.
    """
    if not text:
        return None
    found = _PERIOD.fullmatch(text.strip())
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    period = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if not timedelta(seconds=5) <= period <= timedelta(hours=24):
        raise InvalidField("Cancel-After must be a period of 5s to 24h, as '90s' or '1h30m'.", param="Cancel-After")
    return period
