"""fal's queue: a bare input object to an endpoint in; out it comes by ``storage.replies.fal``, as for the webhooks."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, Literal

from pydantic import Field

from api.dialects.native import read_source
from api.dialects.translation import Translation, sent, without_pictures
from api.order import Order
from api.strict import Strict, read
from fluxfarm.acceleration import Acceleration
from fluxfarm.catalog import BUILT_HERE, DEV, FLEX, KLEIN_BASE_4B, KLEIN_BASE_9B, MAX, PRO, ModelProfile, find_model
from fluxfarm.errors import BadRequest, InvalidField, ModelNotFound
from fluxfarm.jobs import JobType, Lane
from fluxfarm.loras import MAX_LORAS, MAX_SCALE
from fluxfarm.request import MAX_SEED
from fluxfarm.sizes import Size

EDIT: Final = "/edit"
SIZES: Final = {
    "square_hd": Size(1024, 1024),
    "square": Size(512, 512),
    "portrait_4_3": Size(768, 1024),
    "portrait_16_9": Size(576, 1024),
    "landscape_4_3": Size(1024, 768),
    "landscape_16_9": Size(1024, 576),
}
AUTO: Final = "auto"
USUAL: Final = "landscape_4_3"  #: of what is not an edit, when nobody says
GUIDANCE: Final = {DEV.slug: 2.5, FLEX.slug: 3.5, KLEIN_BASE_4B.slug: 5.0, KLEIN_BASE_9B.slug: 5.0}
JPEGS: Final = (FLEX.slug, PRO.slug, MAX.slug)  #: their default format; the others' is PNG
IGNORED: Final = ("enable_safety_checker", "safety_tolerance", "negative_prompt")
SHORTEST_PATIENCE: Final = 1.0  #: seconds; its clients refuse less
LONGEST_PATIENCE: Final = 30 * 86_400.0


class FalImageSize(Strict):
    """Pixels."""

    width: int = Field(512, ge=1, le=14_142)
    height: int = Field(512, ge=1, le=14_142)


class FalLora(Strict):
    """Weights to add: `path` is the name of a file in this farm's folder; no URL is followed."""

    path: str
    scale: float | None = Field(None, ge=0, le=MAX_SCALE)


class FalInput(Strict):
    """What to draw; the union of what the FLUX.2 endpoints take there."""

    prompt: str
    image_urls: list[str] | None = Field(None, max_length=10, description="Of an edit: URLs or data URIs.")
    image_size: str | dict[str, Any] | None = Field(
        None, description="A name such as `landscape_4_3`, `{width, height}`, or `auto`."
    )
    num_inference_steps: int | None = Field(None, ge=1, le=1000)
    guidance_scale: float | None = Field(None, ge=0, le=100)
    num_images: int | None = Field(None, ge=1, le=10)
    seed: int | None = Field(None, ge=0, le=MAX_SEED)
    output_format: Literal["png", "jpeg", "webp"] | None = None
    sync_mode: bool | None = Field(None, description="The result holds the pictures as data URIs.")
    enable_prompt_expansion: bool | None = None
    acceleration: Acceleration | None = Field(None, description="Listed as ignored where it leaves out no step.")
    enable_safety_checker: bool | None = Field(None, description="`false` is heeded where the tenant may.")
    safety_tolerance: str | None = Field(None, max_length=8, description="Listed as ignored.")
    negative_prompt: str | None = Field(None, description="Listed as ignored.")
    loras: list[FalLora] | None = Field(None, max_length=MAX_LORAS, description="`GET /v1/loras` lists them.")


def app_of(endpoint: str) -> str:
    """``owner/app``: where the status, the result and the cancel of a request live, whatever its endpoint's path."""
    return "/".join(endpoint.split("/")[:2])


def find_endpoint(endpoint: str) -> tuple[ModelProfile, JobType]:
    """The model behind an endpoint id, and whether it edits.

    Raises:
        ModelNotFound: nothing of that name is served here.
    """
    kind = JobType.IMAGE_EDITOR if endpoint.endswith(EDIT) else JobType.IMAGE_GENERATOR
    try:
        return find_model(endpoint.removesuffix(EDIT)), kind
    except ModelNotFound:
        raise ModelNotFound(f"Application {endpoint[:100]!r} not found; GET /v1/models lists the aliases.") from None


def serves(app: str, model: str) -> bool:
    """Whether a request of this model can live under the app."""
    profile = find_model(model)
    wanted = app.lower()
    return any(app_of(name).lower() == wanted for name in (profile.slug, *profile.aliases))


def read_order(endpoint: str, body: dict[str, Any]) -> Order:
    """The order that an input object asks for.

    Raises:
        BadRequest: one of its leaves, with the field at fault.
        ModelNotFound: nothing of that name is served here.
    """
    profile, kind = find_endpoint(endpoint)
    asked = read(FalInput, body)
    _check_pictures(kind, asked)
    texts = asked.image_urls or []
    fields = [f"image_urls.{index}" for index in range(len(texts))]
    sources = [read_source(text, name) for text, name in zip(texts, fields, strict=True)]
    usual = "jpeg" if profile.slug in JPEGS else "png"
    return Translation(
        kind=kind,
        profile=profile,
        asked={
            "prompt": asked.prompt,
            **_size(kind, profile, asked),
            "num_inference_steps": asked.num_inference_steps,
            "guidance": GUIDANCE.get(profile.slug) if asked.guidance_scale is None else asked.guidance_scale,
            "n": asked.num_images,
            "seed": asked.seed,
            "output_format": asked.output_format or usual,
            "prompt_upsampling": asked.enable_prompt_expansion,
            "acceleration": asked.acceleration,
            "loras": [lora.model_dump() for lora in asked.loras or ()],
        },
        echo=without_pictures(body, dict(zip(texts, sources, strict=True))),
        pictures=tuple(zip(fields, sources, strict=True)),
        ignored=sent(body, IGNORED),
        own={
            "n": "num_images",
            "guidance": "guidance_scale",
            "images": "image_urls",
            "prompt_upsampling": "enable_prompt_expansion",
            "size": "image_size",
            "width": "image_size",
            "height": "image_size",
        },
    ).order()


def _check_pictures(kind: JobType, asked: FalInput) -> None:
    if kind is JobType.IMAGE_EDITOR and not asked.image_urls:
        raise InvalidField("image_urls: an edit needs at least one picture.", param="image_urls")
    if kind is JobType.IMAGE_GENERATOR and asked.image_urls:
        raise InvalidField("image_urls: pictures are edited at the endpoint's /edit.", param="image_urls")


def _size(kind: JobType, profile: ModelProfile, asked: FalInput) -> dict[str, int]:
    wish = asked.image_size
    if wish is None and kind is JobType.IMAGE_GENERATOR and profile.slug not in BUILT_HERE:
        wish = USUAL
    if wish is None or wish == AUTO:
        return {}
    size = _named_size(wish) if isinstance(wish, str) else _exact_size(wish)
    return {"width": size.width, "height": size.height}


def _named_size(name: str) -> Size:
    if name not in SIZES:
        raise InvalidField(f"image_size must be one of {', '.join(SIZES)}, or an object.", param="image_size")
    return SIZES[name]


def _exact_size(wish: dict[str, Any]) -> Size:
    try:
        size = read(FalImageSize, wish)
    except BadRequest as error:
        error.param = f"image_size.{error.param}"
        raise
    return Size(size.width, size.height)


def read_lane(text: str) -> Lane:
    """``X-Fal-Queue-Priority``.

    Raises:
        InvalidField: neither ``normal`` nor ``low``.
    """
    if text.lower() not in {"normal", "low"}:
        raise InvalidField("X-Fal-Queue-Priority is 'normal' or 'low'.", param="X-Fal-Queue-Priority")
    return Lane.BULK if text.lower() == "low" else Lane.INTERACTIVE


def read_patience(text: str, now: datetime) -> datetime | None:
    """``X-Fal-Request-Timeout``: by when the request must have started, of seconds from ``now``.

    Raises:
        InvalidField: not a number of seconds above 1.
    """
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not SHORTEST_PATIENCE < seconds <= LONGEST_PATIENCE:
        message = "X-Fal-Request-Timeout must be a number of seconds above 1 and up to 30 days."
        raise InvalidField(message, param="X-Fal-Request-Timeout")
    return now + timedelta(seconds=seconds)
