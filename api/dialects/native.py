"""The farm's own call: ``{type, model, promptObject, …}`` to an order."""

from __future__ import annotations

import hashlib
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from api.dialects import extras
from api.order import MATCH_INPUT, Inline, Linked, Order, SizeWish, Source, Uploaded
from api.strict import Strict, future, read
from fluxfarm.acceleration import FEWEST_STEPS, Acceleration, skipped_steps
from fluxfarm.catalog import MODELS, ModelProfile, find_model
from fluxfarm.errors import BadRequest, InvalidField, InvalidReference
from fluxfarm.jobs import JobType, Lane
from fluxfarm.loras import MAX_LORAS, MAX_SCALE, Lora, read_name
from fluxfarm.outbound import parse_url
from fluxfarm.request import MAX_PREVIEWS, MAX_PROMPT_CHARACTERS, MAX_SEED, RenderRequest, check_prompt, choose_seeds
from fluxfarm.routing import Wish
from fluxfarm.sizes import parse_megapixels
from fluxfarm.webhooks import MAX_URL
from storage.pictures import parse_data_uri

MAX_COST: Final = 1_000_000  #: USD
MAX_IMAGES: Final = max(model.max_images for model in MODELS)
MAX_REFERENCES: Final = max(model.max_references for model in MODELS)
IGNORED: Final = ("go_fast", "disable_safety_checker", "prompt_strength")
REMOTE: Final = (*IGNORED, "acceleration")  #: what a remote provider may have too

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


def read_order(body: dict[str, Any], now: datetime) -> Order:
    """The order that a body asks for; ``now`` has a zone.

    Raises:
        BadRequest: one of its leaves, with the field at fault.
        ModelNotFound: the catalogue does not know the model.
    """
    body_without, own = extras.split(body)
    job = read(NewJob, body_without)
    asked = job.prompt_object
    profile = find_model(job.model)
    sources = [read_source(text, f"promptObject.images.{index}") for index, text in enumerate(asked.images or ())]
    try:
        request, wish = read_request(job.type, profile, asked, len(sources))
    except BadRequest as error:
        error.param = f"promptObject.{error.param or 'resolution'}"
        raise
    return Order(
        request=request.model_copy(
            update={
                "previews": job.previews,
                "options": request.options | own,
                "ignored": (*request.ignored, *own),  # by the farm's own workers
            }
        ),
        own_fields=tuple(own),
        wish=wish,
        prompt_object=_echo(body["promptObject"], sources),
        images=tuple(sources),
        routing=Wish(
            provider=job.provider,
            fallback=None if job.fallback is None else tuple(job.fallback),
            max_cost=None if job.max_cost is None else _cost(job.max_cost),
            allow_model_substitution=job.allow_model_substitution,
        ),
        lane=job.lane,
        deadline=future(job.deadline, "deadline", now),
        tags=_tags(job.tags),
        external_id=_external_id(job.external_id),
        webhook=job.webhook,
    )


def read_request(
    kind: JobType, profile: ModelProfile, asked: PromptObject, references: int
) -> tuple[RenderRequest, SizeWish]:
    """The canonical request, still without its ``references`` pictures, and how its size was asked for.

    Raises:
        BadRequest: one of its leaves; ``param`` is the field's name in ``asked``.
    """
    _check_counts(kind, profile, asked, references)
    wish = _wish(asked)
    size = wish.choose(profile, kind, None)
    steps = _one_of(asked, "num_inference_steps", "steps")
    output_format = asked.output_format or profile.default_format
    quality = asked.output_quality
    request = RenderRequest.model_validate(
        {
            "type": kind,
            "model": profile.slug,
            "prompt": _prompt(asked.prompt),
            "width": size.width,
            "height": size.height,
            "seeds": choose_seeds(asked.seed, asked.n or 1),
            "steps": int(profile.steps.check(steps, "num_inference_steps", profile.slug)),
            "guidance": profile.guidance.check(asked.guidance, "guidance", profile.slug),
            "output_format": "jpeg" if output_format == "jpg" else output_format,
            "output_quality": profile.default_quality if quality is None else quality,
            "acceleration": asked.acceleration or "none",
            "loras": _loras(asked),
            "prompt_upsampling": bool(asked.prompt_upsampling),
            "options": _options(asked),
            "ignored": _ignored(asked, wish),
        }
    )
    return _with_what_accelerates(request), wish


def _with_what_accelerates(request: RenderRequest) -> RenderRequest:
    """Without an acceleration that would leave out nothing, or what a distilled model cannot do without."""
    asked = request.acceleration
    if asked == "none" or (request.profile.guidance_kind != "fixed" and skipped_steps(request.steps, asked)):
        return request
    return request.model_copy(update={"acceleration": "none", "ignored": (*request.ignored, "acceleration")})


def _loras(asked: PromptObject) -> list[Lora]:
    found: list[Lora] = []
    for index, wish in enumerate(asked.loras or ()):
        if (wish.name is None) == (wish.path is None):
            message = "name and path are two names of one thing; give one of them."
            raise InvalidField(message, param=f"loras.{index}")
        try:
            name = read_name(wish.name or wish.path or "")
        except InvalidField as error:
            error.param = f"loras.{index}"
            raise
        if any(other.name == name for other in found):
            raise InvalidField(f"The LoRA {name} is named twice.", param=f"loras.{index}")
        found.append(Lora(name=name, scale=1.0 if wish.scale is None else wish.scale))
    return found


def _check_counts(kind: JobType, profile: ModelProfile, asked: PromptObject, references: int) -> None:
    if kind is JobType.IMAGE_EDITOR and not references:
        raise InvalidField("An IMAGE_EDITOR job needs at least one picture in images.", param="images")
    if references > profile.max_references:
        raise InvalidField(f"{profile.slug} takes at most {profile.max_references} images.", param="images")
    if (asked.n or 1) > profile.max_images:
        raise InvalidField(f"{profile.slug} makes at most {profile.max_images} images a job.", param="n")
    if asked.aspect_ratio == MATCH_INPUT and not references:
        raise InvalidField(f"{MATCH_INPUT} needs a picture in images.", param="aspect_ratio")


def _prompt(text: str) -> str:
    try:
        return check_prompt(text)
    except BadRequest as error:
        error.param = "prompt"
        raise


def _one_of(asked: PromptObject, first: str, second: str) -> Any:
    values = getattr(asked, first), getattr(asked, second)
    if None not in values:
        raise InvalidField(f"{first} and {second} are two names of one thing; give one of them.", param=second)
    return values[1] if values[0] is None else values[0]


def _wish(asked: PromptObject) -> SizeWish:
    given = _one_of(asked, "resolution", "megapixels")
    area = None if given is None else parse_megapixels(given)
    return SizeWish(size=asked.size, aspect_ratio=asked.aspect_ratio, area=area, width=asked.width, height=asked.height)


def _ignored(asked: PromptObject, wish: SizeWish) -> tuple[str, ...]:
    """What was sent and changes nothing: what no local pipeline has, and sizes that another field overrules."""
    overruled: tuple[str, ...] = ()
    if wish.size is not None and wish.size.strip().lower() != "auto":
        in_pixels = "x" in wish.size.lower()
        overruled = ("width", "height", "aspect_ratio", *(("resolution", "megapixels") if in_pixels else ()))
    elif wish.width is not None:
        overruled = ("aspect_ratio", "resolution", "megapixels")
    return tuple(name for name in (*IGNORED, *overruled) if getattr(asked, name) is not None)


def _options(asked: PromptObject) -> dict[str, Any]:
    """What only a remote provider may have."""
    return {name: value for name in REMOTE if (value := getattr(asked, name)) is not None}


def read_source(text: str, where: str) -> Source:
    """The picture that a reference id, a URL or a data URI stands for; ``where`` is its field, for errors.

    Raises:
        InvalidReference: none of the three, or a damaged data URI.
        ForbiddenUrl: a URL that the farm will not open.
    """
    try:
        if text.startswith("ref_") and len(text) <= 64:  # noqa: PLR2004
            return Uploaded(text)
        if text[:5].lower() == "data:":
            return Inline(parse_data_uri(text))
        if text[:8].lower().startswith(("https://", "http://")):
            parse_url(text)
            return Linked(text)
        raise InvalidReference("An image is a reference id (ref_…), an https URL or a data URI.")
    except BadRequest as error:
        error.param = where
        raise


def _cost(value: str | float) -> Decimal:
    try:
        cost = Decimal(str(value))
    except InvalidOperation:
        cost = Decimal(-1)
    if not (cost.is_finite() and 0 <= cost <= MAX_COST):
        raise InvalidField(f"maxCost is an amount of USD, 0 to {MAX_COST}.", param="maxCost")
    return cost


def _tags(tags: list[str]) -> tuple[str, ...]:
    for index, tag in enumerate(tags):
        if not tag.isprintable():
            raise InvalidField("A tag holds a control character.", param=f"tags.{index}")
    return tuple(dict.fromkeys(tags))


def _external_id(text: str | None) -> str | None:
    if text is not None and not text.isprintable():
        raise InvalidField("externalId holds a control character.", param="externalId")
    return text


def _echo(asked: dict[str, Any], sources: list[Source]) -> dict[str, Any]:
    if not any(isinstance(source, Inline) for source in sources):
        return asked
    images = [
        f"{text.partition(',')[0]},…sha256:{hashlib.sha256(source.body).hexdigest()}"
        if isinstance(source, Inline)
        else text
        for text, source in zip(asked["images"], sources, strict=True)
    ]
    return {**asked, "images": images}
