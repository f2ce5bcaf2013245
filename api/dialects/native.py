"""The farm's own call: ``{type, model, promptObject, …}`` to an order."""

from __future__ import annotations

import hashlib
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from api.dialects import extras
from api.dialects.native_body import NewJob, PromptObject
from api.order import MATCH_INPUT, Inline, Linked, Order, SizeWish, Source, Uploaded
from api.strict import future, read
from fluxfarm.acceleration import skipped_steps
from fluxfarm.catalog import ModelProfile, find_model
from fluxfarm.errors import BadRequest, InvalidField, InvalidReference
from fluxfarm.jobs import JobType
from fluxfarm.loras import Lora, read_name
from fluxfarm.outbound import parse_url
from fluxfarm.request import RenderRequest, check_prompt, choose_seeds
from fluxfarm.routing import Wish
from fluxfarm.sizes import parse_megapixels
from storage.pictures import parse_data_uri

MAX_COST: Final = 1_000_000  #: USD
IGNORED: Final = ("go_fast", "disable_safety_checker", "prompt_strength")
REMOTE: Final = (*IGNORED, "acceleration")  #: what a remote provider may have too


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
