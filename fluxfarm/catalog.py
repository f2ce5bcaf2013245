"""The models that the farm knows: their names elsewhere, their limits and defaults, and their licences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from fluxfarm.errors import InvalidField, ModelNotFound
from fluxfarm.sizes import MEGAPIXEL, Size, SizeLimits

GuidanceKind = Literal["embedded", "cfg", "fixed", "remote"]

NON_COMMERCIAL: Final = "FLUX Non-Commercial License"
APACHE: Final = "Apache-2.0"
REMOTE_TERMS: Final = "Black Forest Labs API terms"


@dataclass(frozen=True, slots=True)
class Range:
    """What a number may be, ends included, and what it is when nobody says."""

    low: float
    high: float
    default: float

    def check(self, value: float | None, name: str, model: str) -> float:
        """Give the value or the default.

        Raises:
            InvalidField: outside the range.
        """
        if value is None:
            return self.default
        if not self.low <= value <= self.high:
            allowed = f"{self.low:g} to {self.high:g}" if self.low < self.high else f"{self.low:g}, which is fixed"
            raise InvalidField(f"{name} is {value:g}; {model} takes {allowed}.", param=name)
        return value


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """One model: what may be asked of it, and how its pipeline must be called.

    ``guidance_kind`` says what the number does: ``embedded`` is a vector in one pass (dev), ``cfg`` true
    classifier-free guidance in two passes (klein base), ``fixed`` means that the model was distilled for one value.
    ``pipeline`` is the diffusers class; None means that only remote providers have the model.
    """

    slug: str
    name: str
    summary: str
    licence: str
    commercial: bool
    pipeline: Literal["Flux2Pipeline", "Flux2KleinPipeline"] | None
    steps: Range
    guidance: Range
    guidance_kind: GuidanceKind
    sizes: SizeLimits
    default_size: Size
    max_references: int
    max_images: int = 10
    max_sequence_length: int = 512
    batches: tuple[tuple[int, int], ...] = ()  #: pixels of a picture, and how many up to there pay in one call
    hub_id: str | None = None
    aliases: tuple[str, ...] = ()
    released: str = ""
    default_format: str = "webp"
    default_quality: int = 80

    @property
    def is_local(self) -> bool:
        """True when a GPU of the farm can render it, given the weights."""
        return self.pipeline is not None

    def batch(self, size: Size) -> int:
        """How many pictures of the size one call of the pipeline should draw; more would only take memory."""
        return next((pictures for pixels, pictures in self.batches if size.width * size.height <= pixels), 1)


def _names(stem: str, *more: str) -> tuple[str, ...]:
    """The spellings that OpenAI-shaped gateways, Cloudflare, Replicate and Lumenfall use for one model."""
    dotted = stem.replace("flux-2", "flux.2")
    return (
        stem,
        dotted,
        f"black-forest-labs/{dotted}",
        f"@cf/black-forest-labs/{stem}",
        f"fal/{dotted}",
        f"fal/{dotted}-edit",
        f"replicate/{dotted}",
        *more,
    )


_FLUX2_SIZES: Final = SizeLimits(min_side=64, max_side=4096, max_pixels=4 * MEGAPIXEL)
_SMALL_SIZES: Final = SizeLimits(min_side=64, max_side=1024, max_pixels=MEGAPIXEL)
_SQUARE: Final = Size(1024, 1024)
#: From 768 x 768 on one picture fills a large GPU (1.02 times faster by two); at 512 x 512 four give 2.8 times as much.
#: klein's four steps are so short that the launches count up to 1 MP. The small models gain on a CPU:
#: 1.9 times by eight at 128 x 128, 1.1 by two at 256 x 256; four give 1.3, but a person would wait for them.
_DEV_BATCHES: Final = ((512 * 512, 4),)
_KLEIN_BATCHES: Final = ((512 * 512, 8), (1024 * 1024, 4))
_SMALL_BATCHES: Final = ((128 * 128, 8), (256 * 256, 2))
_FIXED_GUIDANCE: Final = Range(1.0, 1.0, 1.0)

DEV: Final = ModelProfile(
    slug="black-forest-labs/flux-2-dev",
    name="FLUX.2 [dev]",
    summary="Open-weights 32B model; text to image and editing with up to 10 references.",
    licence=NON_COMMERCIAL,
    commercial=False,
    pipeline="Flux2Pipeline",
    steps=Range(1, 50, 28),
    guidance=Range(0, 10, 4.0),
    guidance_kind="embedded",
    sizes=_FLUX2_SIZES,
    default_size=_SQUARE,
    max_references=10,
    hub_id="black-forest-labs/FLUX.2-dev",
    aliases=_names("flux-2-dev", "fal-ai/flux-2", "fal-ai/flux-2/edit"),
    released="2025-11-24",
    batches=_DEV_BATCHES,
)
KLEIN_4B: Final = ModelProfile(
    slug="black-forest-labs/flux-2-klein-4b",
    name="FLUX.2 [klein] 4B",
    summary="Distilled to 4 steps; under a second an image on a large GPU; free for commercial use.",
    licence=APACHE,
    commercial=True,
    pipeline="Flux2KleinPipeline",
    steps=Range(1, 8, 4),
    guidance=_FIXED_GUIDANCE,
    guidance_kind="fixed",
    sizes=_FLUX2_SIZES,
    default_size=_SQUARE,
    max_references=10,
    hub_id="black-forest-labs/FLUX.2-klein-4B",
    aliases=_names("flux-2-klein-4b", "fal-ai/flux-2/klein/4b", "fal-ai/flux-2/klein/4b/edit"),
    released="2026-01-15",
    batches=_KLEIN_BATCHES,
)
KLEIN_9B: Final = ModelProfile(
    slug="black-forest-labs/flux-2-klein-9b",
    name="FLUX.2 [klein] 9B",
    summary="Distilled to 4 steps, the larger sibling.",
    licence=NON_COMMERCIAL,
    commercial=False,
    pipeline="Flux2KleinPipeline",
    steps=Range(1, 8, 4),
    guidance=_FIXED_GUIDANCE,
    guidance_kind="fixed",
    sizes=_FLUX2_SIZES,
    default_size=_SQUARE,
    max_references=10,
    hub_id="black-forest-labs/FLUX.2-klein-9B",
    aliases=_names("flux-2-klein-9b", "fal-ai/flux-2/klein/9b", "fal-ai/flux-2/klein/9b/edit"),
    released="2026-01-15",
    batches=_KLEIN_BATCHES,
)
KLEIN_BASE_4B: Final = ModelProfile(
    slug="black-forest-labs/flux-2-klein-base-4b",
    name="FLUX.2 [klein] base 4B",
    summary="The undistilled 4B model, for fine-tuning and for guidance that can be set.",
    licence=APACHE,
    commercial=True,
    pipeline="Flux2KleinPipeline",
    steps=Range(1, 50, 50),
    guidance=Range(1, 10, 4.0),
    guidance_kind="cfg",
    sizes=_FLUX2_SIZES,
    default_size=_SQUARE,
    max_references=10,
    hub_id="black-forest-labs/FLUX.2-klein-base-4B",
    aliases=_names(
        "flux-2-klein-base-4b",
        "black-forest-labs/flux-2-klein-4b-base",
        "fal-ai/flux-2/klein/4b/base",
        "fal-ai/flux-2/klein/4b/base/edit",
    ),
    released="2026-01-15",
    batches=_KLEIN_BATCHES,
)
KLEIN_BASE_9B: Final = ModelProfile(
    slug="black-forest-labs/flux-2-klein-base-9b",
    name="FLUX.2 [klein] base 9B",
    summary="The undistilled 9B model.",
    licence=NON_COMMERCIAL,
    commercial=False,
    pipeline="Flux2KleinPipeline",
    steps=Range(1, 50, 50),
    guidance=Range(1, 10, 4.0),
    guidance_kind="cfg",
    sizes=_FLUX2_SIZES,
    default_size=_SQUARE,
    max_references=10,
    hub_id="black-forest-labs/FLUX.2-klein-base-9B",
    aliases=_names(
        "flux-2-klein-base-9b",
        "black-forest-labs/flux-2-klein-9b-base",
        "fal-ai/flux-2/klein/9b/base",
        "fal-ai/flux-2/klein/9b/base/edit",
    ),
    released="2026-01-15",
    batches=_KLEIN_BATCHES,
)
FLEX: Final = ModelProfile(
    slug="black-forest-labs/flux-2-flex",
    name="FLUX.2 [flex]",
    summary="Steps, guidance and prompt upsampling to set; strong at typography. Remote providers only.",
    licence=REMOTE_TERMS,
    commercial=True,
    pipeline=None,
    steps=Range(6, 50, 25),
    guidance=Range(2, 5, 3.0),
    guidance_kind="remote",
    sizes=_FLUX2_SIZES,
    default_size=_SQUARE,
    max_references=10,
    aliases=_names("flux-2-flex", "fal-ai/flux-2-flex", "fal-ai/flux-2-flex/edit"),
    released="2026-05-27",
)
PRO: Final = ModelProfile(
    slug="black-forest-labs/flux-2-pro",
    name="FLUX.2 [pro]",
    summary="Black Forest Labs' production model. Remote providers only.",
    licence=REMOTE_TERMS,
    commercial=True,
    pipeline=None,
    steps=Range(15, 50, 25),
    guidance=Range(2, 5, 3.0),
    guidance_kind="remote",
    sizes=_FLUX2_SIZES,
    default_size=_SQUARE,
    max_references=8,
    aliases=_names("flux-2-pro", "fal-ai/flux-2-pro", "fal-ai/flux-2-pro/edit"),
    released="2025-11-24",
)
MAX: Final = ModelProfile(
    slug="black-forest-labs/flux-2-max",
    name="FLUX.2 [max]",
    summary="The largest of the family. Remote providers only.",
    licence=REMOTE_TERMS,
    commercial=True,
    pipeline=None,
    steps=Range(15, 50, 50),
    guidance=Range(2, 5, 3.0),
    guidance_kind="remote",
    sizes=_FLUX2_SIZES,
    default_size=_SQUARE,
    max_references=8,
    aliases=_names("flux-2-max", "fal-ai/flux-2-max", "fal-ai/flux-2-max/edit"),
)
SMALL: Final = ModelProfile(
    slug="fluxfarm/flux-2-small",
    name="Fluxfarm small (dev shape)",
    summary="A tiny model of the [dev] architecture for tests and laptops; untrained, so it draws noise.",
    licence=APACHE,
    commercial=True,
    pipeline="Flux2Pipeline",
    steps=Range(1, 50, 8),
    guidance=Range(0, 10, 4.0),
    guidance_kind="embedded",
    sizes=_SMALL_SIZES,
    default_size=Size(256, 256),
    max_references=10,
    aliases=("flux-2-small",),
    batches=_SMALL_BATCHES,
)
KLEIN_SMALL: Final = ModelProfile(
    slug="fluxfarm/flux-2-klein-small",
    name="Fluxfarm small (klein shape)",
    summary=(
        "A tiny model of the [klein] architecture, trained to draw simple marketing cards of 128 x 128 pixels on a "
        "laptop's CPU; it knows 14 objects, 9 colours and 12 headline words."
    ),
    licence=APACHE,
    commercial=True,
    pipeline="Flux2KleinPipeline",
    steps=Range(1, 50, 8),
    guidance=Range(1, 10, 2.0),
    guidance_kind="cfg",
    sizes=_SMALL_SIZES,
    default_size=Size(128, 128),
    max_references=10,
    max_sequence_length=64,
    aliases=("flux-2-klein-small",),
    batches=_SMALL_BATCHES,
)

MODELS: Final = (DEV, KLEIN_4B, KLEIN_9B, KLEIN_BASE_4B, KLEIN_BASE_9B, FLEX, PRO, MAX, SMALL, KLEIN_SMALL)
BUILT_HERE: Final = (SMALL.slug, KLEIN_SMALL.slug)  #: models that the farm makes itself, offline

_BY_NAME: Final = {name.lower(): model for model in MODELS for name in (model.slug, *model.aliases)}


def find_model(name: str) -> ModelProfile:
    """The profile behind a slug or an alias; upper and lower case are alike.

    Raises:
        ModelNotFound: no model of that name.
    """
    found = _BY_NAME.get(name.strip().lower())
    if found is None:
        raise ModelNotFound(f"There is no model {name[:100]!r}; GET /v1/models lists them.", param="model")
    return found
