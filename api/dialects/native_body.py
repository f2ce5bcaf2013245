"""The body of the farm's own call, field by field, and examples of it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from api.dialects import extras
from api.strict import Strict
from fluxfarm.acceleration import FEWEST_STEPS, Acceleration
from fluxfarm.catalog import MODELS
from fluxfarm.jobs import JobType, Lane
from fluxfarm.loras import MAX_LORAS, MAX_SCALE
from fluxfarm.request import MAX_PREVIEWS, MAX_PROMPT_CHARACTERS, MAX_SEED
from fluxfarm.webhooks import MAX_URL

MAX_IMAGES: Final = max(model.max_images for model in MODELS)
MAX_REFERENCES: Final = max(model.max_references for model in MODELS)

Area = Annotated[str, Field(max_length=16)] | float
Cost = Annotated[str, Field(max_length=32)] | float
Tag = Annotated[str, Field(min_length=1, max_length=64)]


class LoraWish(Strict):
    """A LoRA of the farm's folder."""

    name: str | None = Field(None, max_length=200, description="As `GET /v1/loras` has it.")
    path: str | None = Field(
        None, max_length=2_000, description="The same under fal's name; no URL and no path is ever followed."
    )
    scale: float | None = Field(None, ge=0, le=MAX_SCALE, description="How much of it; 1 when not said.")


class PromptObject(Strict):
    """What to draw.

    The record echoes it as it came, except that a data URI is shortened to its type and the SHA-256 of its bytes.
    """

    model_config = ConfigDict(json_schema_extra=lambda schema: schema["properties"].update(extras.schema()))

    prompt: str = Field(
        description="What to draw; 1 to 4,000 characters.",
        json_schema_extra={"minLength": 1, "maxLength": MAX_PROMPT_CHARACTERS},
    )
    size: str | None = Field(
        None, max_length=32, description="Pixels (`1024x768`), a ratio (`16:9`) or `auto`; wins over the other sizes."
    )
    aspect_ratio: str | None = Field(None, max_length=32, description="`16:9`, or `match_input_image`.")
    resolution: Area | None = Field(None, description="Area as a tier (`1K`, `2K`) or in megapixels.")
    megapixels: Area | None = Field(None, description="The same under its other name; give one of the two.")
    width: int | None = Field(None, ge=1, le=16_384, description="Pixels; together with height.")
    height: int | None = Field(None, ge=1, le=16_384, description="Pixels; together with width.")
    n: int | None = Field(None, ge=1, le=MAX_IMAGES, description="How many images; 1 when not said.")
    seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description="Of the first image, the others count on; random when not said."
    )
    num_inference_steps: int | None = Field(None, ge=1, le=1000, description="Denoising steps; see /v1/models.")
    steps: int | None = Field(None, ge=1, le=1000, description="The same under its other name; give one of the two.")
    guidance: float | None = Field(None, ge=0, le=100, description="See /v1/models for the model's range.")
    output_format: Literal["png", "jpeg", "jpg", "webp", "avif", "gif"] | None = Field(
        None, description="webp when not said."
    )
    output_quality: int | None = Field(None, ge=0, le=100, description="Of the encoder; 80 when not said.")
    images: list[str] | None = Field(
        None,
        max_length=MAX_REFERENCES,
        description="References: ids of `POST /v1/references`, https URLs, `data:image/…;base64,…` URIs.",
    )
    prompt_upsampling: bool | None = Field(
        None, description="Rewrite the prompt first: `revisedPrompt` of the record, or listed as ignored."
    )
    go_fast: bool | None = Field(
        None, description="Not done by the farm's own pipeline, only by a provider that has it."
    )
    acceleration: Acceleration | None = Field(
        None,
        description=(
            "Leave denoising steps out, always the same ones: 10 of 28 (`regular`) or 14 (`high`). Listed as ignored "
            f"below {FEWEST_STEPS} steps and for distilled models, which need all of theirs."
        ),
    )
    disable_safety_checker: bool | None = Field(
        None, description="The farm's own checks heed it where the tenant may; sent to a provider that has some."
    )
    prompt_strength: float | None = Field(None, ge=0, le=1, description="Not done by the farm's own pipeline.")
    loras: list[LoraWish] | None = Field(
        None, max_length=MAX_LORAS, description="Files to add to the model; `GET /v1/loras` lists them."
    )


class NewJob(Strict):
    """A job to accept."""

    type: Annotated[JobType, Field(strict=False, description="An IMAGE_EDITOR job needs at least one image.")]
    model: str = Field(min_length=1, max_length=200, description="A slug or an alias; see /v1/models.")
    prompt_object: PromptObject = Field(alias="promptObject")
    provider: str = Field(
        "auto",
        min_length=1,
        max_length=32,
        description=(
            "Who renders: `auto` (the farm itself when it can in time, else the cheapest provider), `local`, or a "
            "provider of `GET /v1/providers`."
        ),
    )
    fallback: list[Annotated[str, Field(min_length=1, max_length=32)]] | None = Field(
        None,
        max_length=16,
        description=(
            "Who renders when those before cannot, in this order; `[]`: nobody. Not said: anybody behind `auto`, "
            "nobody behind a name."
        ),
    )
    max_cost: Cost | None = Field(
        None, alias="maxCost", description="USD that the job may cost at most; dearer providers are not asked."
    )
    allow_model_substitution: bool = Field(
        False,
        alias="allowModelSubstitution",
        description="Let a provider without the model draw with a close one; the attempt names it.",
    )
    lane: Annotated[Lane, Field(strict=False, description="How urgent it is; an earlier lane is served first.")] = (
        Lane.INTERACTIVE
    )
    deadline: str | None = Field(
        None,
        max_length=40,
        description="RFC 3339 with a zone, in the future; a job that has not started by then is CANCELED.",
        json_schema_extra={"format": "date-time"},
    )
    tags: list[Tag] = Field(default_factory=list, max_length=20, description="Words to find the job by.")
    previews: int = Field(
        0, ge=0, le=MAX_PREVIEWS, description="Of each image while it is drawn; the events of the job show them."
    )
    external_id: str | None = Field(
        None,
        alias="externalId",
        min_length=1,
        max_length=200,
        description="Your own name of the job; a second job of that name is a 409 that names the first one.",
    )
    webhook: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_URL,
        description="Who is told of the job's end: an id of `/v1/webhooks`, or an https URL, which becomes one.",
    )


EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "shortest": {
        "summary": "Text to image",
        "value": {
            "type": "IMAGE_GENERATOR",
            "model": "fluxfarm/flux-2-klein-small",
            "promptObject": {"prompt": "A red fox in fresh snow, morning light"},
        },
    },
    "full": {
        "summary": "Everything set",
        "value": {
            "type": "IMAGE_GENERATOR",
            "model": "fluxfarm/flux-2-small",
            "promptObject": {
                "prompt": "A bottle of olive oil on a stone table, product photo",
                "aspect_ratio": "4:3",
                "megapixels": 0.25,
                "n": 2,
                "seed": 7,
                "num_inference_steps": 4,
                "guidance": 3.5,
                "output_format": "png",
                "output_quality": 90,
            },
            "provider": "local",
            "lane": "bulk",
            "tags": ["spring", "oil"],
        },
    },
    "edit": {
        "summary": "Editing a picture that comes with the call",
        "value": {
            "type": "IMAGE_EDITOR",
            "model": "fluxfarm/flux-2-small",
            "promptObject": {
                "prompt": "Make it look like a watercolour",
                "images": [
                    "data:image/png;base64,"  # noqa: ISC004 - one picture, 64 x 64
                    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAUUlEQVR42u3PMQ0AMAgAMJgaJCIRWVPBQdI6aE5X"
                    "XPbiOAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAYF9HxzAAehaf9vAAAAAAElF"
                    "TkSuQmCC"
                ],
            },
        },
    },
}
