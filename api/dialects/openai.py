"""OpenAI's images calls, with Lumenfall's and FLUX.2 [flex]'s parameters beside them: a call to an order."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from api.forms import FormFile
from api.order import MATCH_INPUT, Inline, Linked, Order, SizeWish, Source, Uploaded
from api.strict import Strict, read
from fluxfarm.catalog import ModelProfile, find_model
from fluxfarm.errors import BadRequest, InvalidField, InvalidReference
from fluxfarm.jobs import JobType
from fluxfarm.outbound import parse_url
from fluxfarm.request import MAX_PREVIEWS, MAX_SEED, RenderRequest, check_prompt, choose_seeds
from fluxfarm.sizes import parse_megapixels
from storage.pictures import parse_data_uri

MAX_IMAGES: Final = 10
DEFAULT_FORMAT: Final = "png"  #: OpenAI's
#: a quality as a share of the model's own number of steps; ``max`` is its highest
STEPS_OF: Final[Mapping[str, float]] = {"low": 0.5, "medium": 1.0, "high": 1.5, "xhigh": 1.75, "max": math.inf}
SAME_QUALITY: Final[Mapping[str | None, str]] = {None: "medium", "auto": "medium", "standard": "medium", "hd": "high"}
SWITCHES: Final = {"on": True, "off": False}
OPENAI_ONLY: Final = frozenset(
    {"complexity", "frame_count", "frame_duration_ms", "input_fidelity", "markup", "moderation", "style", "svg"}
)

Switch = Annotated[bool | None, BeforeValidator(lambda word: SWITCHES[word] if word in ("on", "off") else word)]


class ImagesCall(Strict):
    """The body of ``/v1/images/generations`` and the fields of ``/v1/images/edits``."""

    model_config = ConfigDict(extra="allow")

    prompt: str = Field(description="What to draw; 1 to 4,000 characters.", json_schema_extra={"minLength": 1})
    model: str | None = Field(None, max_length=200, description="A slug or an alias; the farm's first when not said.")
    n: int | None = Field(None, ge=1, le=MAX_IMAGES, description="How many images; 1 when not said.")
    size: str | None = Field(None, max_length=32, description="`1024x768`, `16:9` or `auto`; wins over the two below.")
    aspect_ratio: str | None = Field(None, max_length=32, description="Any ratio; the nearest that the model draws.")
    resolution: str | float | None = Field(None, description="`0.5K` to `4K` or megapixels; the nearest is taken.")
    width: int | None = Field(None, ge=1, le=16_384, description="Pixels; together with height.")
    height: int | None = Field(None, ge=1, le=16_384, description="Pixels; together with width.")
    quality: Literal["low", "medium", "high", "xhigh", "max", "auto", "standard", "hd"] | None = Field(
        None, description="Sets the steps when `steps` does not; without effect on a model distilled for its steps."
    )
    response_format: Literal["url", "b64_json"] | None = Field(None, description="`url` when not said.")
    output_format: Literal["png", "jpeg", "jpg", "webp", "gif", "avif"] | None = Field(None, description="Else `png`.")
    output_compression: int | None = Field(None, ge=0, le=100, description="The encoder's quality.")
    output_quality: int | None = Field(None, ge=0, le=100, description="The same under Replicate's name.")
    background: Literal["opaque", "auto"] | None = Field(None, description="FLUX.2 draws opaque pictures only.")
    user: str | None = Field(None, max_length=1000, description="Kept on the record.")
    safety_identifier: str | None = Field(None, max_length=1000, description="Kept on the record.")
    stream: bool | None = Field(None, description="Server-sent events instead of one reply.")
    partial_images: int | None = Field(None, ge=0, le=MAX_PREVIEWS, description="Previews in the stream.")
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="Of the first image; random when not said.")
    steps: int | None = Field(None, ge=1, le=1000, description="Denoising steps; see /v1/models.")
    num_inference_steps: int | None = Field(None, ge=1, le=1000, description="The same under its other name.")
    guidance: float | None = Field(None, ge=0, le=100, description="See /v1/models for the model's range.")
    guidance_scale: float | None = Field(None, ge=0, le=100, description="The same under fal's name.")
    cfg_scale: float | None = Field(None, ge=0, le=100, description="The same under Lumenfall's name.")
    prompt_upsampling: Switch = Field(None, description="Rewrite the prompt before the render, where that can be done.")
    prompt_enhancement: Switch = Field(None, description="The same under Lumenfall's name.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesOrder:
    """An order, and how its caller wants the pictures."""

    order: Order
    stream: bool
    as_base64: bool


def read_generation(body: Mapping[str, Any], default_model: str) -> ImagesOrder:
    """The order behind the JSON of ``/v1/images/generations``.

    Raises:
        BadRequest: one of its leaves, with the field at fault.
        ModelNotFound: the catalogue does not know the model.
    """
    return _order(JobType.IMAGE_GENERATOR, read(ImagesCall, _without_refused(body)), dict(body), (), default_model)


def read_edit(body: Mapping[str, Any], default_model: str) -> ImagesOrder:
    """The order behind the JSON of ``/v1/images/edits``: ``images`` with URLs, data URIs or ids, or ``image``."""
    given = body.get("images", body.get("image"))
    named = given if isinstance(given, list) else [given]
    sources = tuple(_source(f"images.{index}", one) for index, one in enumerate(named) if one is not None)
    rest = {name: value for name, value in body.items() if name not in {"images", "image"}}
    call = read(ImagesCall, _without_refused(rest))
    return _order(JobType.IMAGE_EDITOR, call, {**rest, "images": _shown(sources)}, sources, default_model)


def read_form(fields: Mapping[str, Any], files: Sequence[FormFile], default_model: str) -> ImagesOrder:
    """The order behind the form of ``/v1/images/edits``; numbers and switches come as text there."""
    other = next((file.name for file in files if file.name not in {"image", "images", "mask"}), None)
    if other is not None:
        raise InvalidField(f"The file in the part {other[:60]!r} is not used; name it image.", param=other[:60])
    if any(file.name == "mask" for file in files):
        raise _no_mask()
    sources = tuple(Inline(file.body) for file in files)
    call = read(ImagesCall, _without_refused(fields), strict=False)
    return _order(JobType.IMAGE_EDITOR, call, {**fields, "images": _shown(sources)}, sources, default_model)


def quality_of(name: Any) -> str:
    """The quality as a reply tells it, which knows no ``auto``."""
    return SAME_QUALITY.get(name, name)


def _without_refused(body: Mapping[str, Any]) -> dict[str, Any]:
    if body.get("mask") is not None:
        raise _no_mask()
    if body.get("background") == "transparent":
        message = "FLUX.2 draws opaque pictures; background can be opaque or auto."
        raise InvalidField(message, param="background")
    if body.get("output_format") == "svg":
        raise InvalidField("svg is not made here; take png, jpeg, webp, gif or avif.", param="output_format")
    return dict(body)


def _no_mask() -> InvalidField:
    message = "No model here inpaints: leave the mask out and say in the prompt what should change, and where."
    return InvalidField(message, param="mask")


def _order(
    kind: JobType, call: ImagesCall, shown: dict[str, Any], sources: tuple[Source, ...], default_model: str
) -> ImagesOrder:
    profile = find_model(call.model or default_model)
    if kind is JobType.IMAGE_EDITOR and not sources:
        raise InvalidField("An edit needs at least one picture in image.", param="image")
    if len(sources) > profile.max_references:
        raise InvalidField(f"{profile.slug} takes at most {profile.max_references} images.", param="image")
    wish = _wish(call, bool(sources))
    return ImagesOrder(
        order=Order(request=_request(kind, profile, call, wish), wish=wish, prompt_object=shown, images=sources),
        stream=bool(call.stream),
        as_base64=call.response_format == "b64_json",
    )


def _request(kind: JobType, profile: ModelProfile, call: ImagesCall, wish: SizeWish) -> RenderRequest:
    size = wish.choose(profile, kind, None)
    guidance = _one_of(call, "guidance", "guidance_scale", "cfg_scale")
    compression = _one_of(call, "output_compression", "output_quality")
    output_format = call.output_format or DEFAULT_FORMAT
    n = call.n or 1
    if n > profile.max_images:
        raise InvalidField(f"{profile.slug} makes at most {profile.max_images} images a call.", param="n")
    return RenderRequest.model_validate(
        {
            "type": kind,
            "model": profile.slug,
            "prompt": _prompt(call.prompt),
            "width": size.width,
            "height": size.height,
            "seeds": choose_seeds(call.seed, n),
            "steps": _steps(profile, call),
            "guidance": profile.guidance.check(guidance, "guidance", profile.slug),
            "output_format": "jpeg" if output_format == "jpg" else output_format,
            "output_quality": profile.default_quality if compression is None else compression,
            "prompt_upsampling": bool(_one_of(call, "prompt_upsampling", "prompt_enhancement")),
            "previews": (call.partial_images or 0) if call.stream else 0,
            "options": _options(call),
            "ignored": _ignored(profile, call),
        }
    )


def _prompt(text: str) -> str:
    try:
        return check_prompt(text)
    except BadRequest as error:
        error.param = "prompt"
        raise


def _one_of(call: ImagesCall, *names: str) -> Any:
    given = {name: value for name in names if (value := getattr(call, name)) is not None}
    if len(given) > 1:
        first, second = list(given)[:2]
        raise InvalidField(f"{first} and {second} are two names of one thing; give one of them.", param=second)
    return next(iter(given.values()), None)


def _steps(profile: ModelProfile, call: ImagesCall) -> int:
    asked = _one_of(call, "steps", "num_inference_steps")
    if asked is None and call.quality is not None and profile.guidance_kind != "fixed":
        share = STEPS_OF[quality_of(call.quality)]
        wanted = profile.steps.high if math.isinf(share) else math.ceil(share * profile.steps.default)
        asked = min(max(wanted, profile.steps.low), profile.steps.high)
    return int(profile.steps.check(asked, "steps", profile.slug))


def _wish(call: ImagesCall, has_sources: bool) -> SizeWish:
    if call.aspect_ratio == MATCH_INPUT and not has_sources:
        raise InvalidField(f"{MATCH_INPUT} needs a picture in image.", param="aspect_ratio")
    auto = call.resolution is None or str(call.resolution).strip().lower() == "auto"
    return SizeWish(
        size=call.size,
        aspect_ratio=None if call.aspect_ratio == "auto" else call.aspect_ratio,
        area=None if auto else parse_megapixels(call.resolution or 0),
        width=call.width,
        height=call.height,
        nearest=True,
    )


def _ignored(profile: ModelProfile, call: ImagesCall) -> tuple[str, ...]:
    """What was sent and changes nothing: other services' switches, unknown names, and what another field overrules."""
    extra = [name for name, value in (call.model_extra or {}).items() if value is not None]
    found = [name[:60] for name in extra]
    if call.partial_images and not call.stream:
        found.append("partial_images")
    if call.quality is not None and (_one_of(call, "steps", "num_inference_steps") or profile.guidance_kind == "fixed"):
        found.append("quality")
    sized = call.size is not None and call.size.strip().lower() != "auto"
    if sized or call.width is not None:
        found += [name for name in ("aspect_ratio", "resolution") if getattr(call, name) is not None]
    if sized and call.width is not None:
        found += ["width", "height"]
    return tuple(sorted(found))


def _options(call: ImagesCall) -> dict[str, Any]:
    """Unknown names, for a remote provider that may have them; what is OpenAI's alone goes to nobody."""
    extra = (call.model_extra or {}).items()
    return {name: value for name, value in extra if value is not None and name not in OPENAI_ONLY}


def _source(where: str, given: Any) -> Source:
    text = given if isinstance(given, str) else None
    if isinstance(given, Mapping):
        text = given.get("image_url") or given.get("file_id")
        text = text.get("url") if isinstance(text, Mapping) else text
    try:
        if isinstance(text, str) and text.startswith("ref_") and len(text) <= 64:  # noqa: PLR2004
            return Uploaded(text)
        if isinstance(text, str) and text[:5].lower() == "data:":
            return Inline(parse_data_uri(text))
        if isinstance(text, str) and text[:8].lower().startswith(("https://", "http://")):
            parse_url(text)
            return Linked(text)
        message = "An image is {'image_url': an https URL or a data URI} or {'file_id': an id of POST /v1/references}."
        raise InvalidReference(message)
    except BadRequest as error:
        error.param = where
        raise


def _shown(sources: tuple[Source, ...]) -> list[str]:
    """The pictures as the record names them."""
    return [
        source.id
        if isinstance(source, Uploaded)
        else source.url
        if isinstance(source, Linked)
        else f"sha256:{hashlib.sha256(source.body).hexdigest()}"
        for source in sources
    ]
