"""Replicate's FLUX.2 models: the input schemas of their published versions.

Replicate's own price list was not at hand. dev and klein are priced as Lumenfall tells them, the others as Black Forest
Labs sells them; a deployment states other prices in its settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from fluxfarm.catalog import DEV, FLEX, KLEIN_4B, KLEIN_9B, KLEIN_BASE_9B, MAX, PRO
from fluxfarm.jobs import JobType
from fluxfarm.offers.offer import Offer
from fluxfarm.offers.treatments import PASSED, Treatment, clamped, converted, parameters, renamed, wrapped
from fluxfarm.pricing import PerMegapixel, Tariff, flat
from fluxfarm.sizes import MEGAPIXEL, SizeLimits

LARGEST_SEED: Final = 2**31 - 1
DEV_SIZES: Final = SizeLimits(min_side=256, max_side=1440, max_pixels=1440 * 1440)
HOSTED_SIZES: Final = SizeLimits(min_side=256, max_side=2048, max_pixels=4 * MEGAPIXEL)
RATIOS: Final = ("1:1", "16:9", "3:2", "2:3", "4:5", "5:4", "9:16", "3:4", "4:3")
FORMATS: Final = ("png", "jpeg", "webp")


def _table(images: str, size: str, **more: Treatment) -> Mapping[str, Treatment]:
    seed = wrapped("seed", LARGEST_SEED)
    return parameters(size=converted(size), seed=seed, images=converted(images), **more)


def _offer(model: str, name: str, tariff: Tariff, table: Mapping[str, Treatment], **more: Any) -> Offer:
    ours: dict[str, Any] = {"sizes": HOSTED_SIZES, "multiple": 32, "extras": frozenset({"safety_tolerance"})} | more
    return Offer(
        provider="replicate",
        model=model,
        endpoints=dict.fromkeys(JobType, f"black-forest-labs/{name}"),
        formats=FORMATS,
        parameters=table,
        tariff=tariff,
        price_source="estimate, after lumenfall.ai/models and docs.bfl.ai, 2026-11",
        **ours,
    )


def _klein(model: str, name: str, tariff: Tariff, **more: Treatment) -> Offer:
    """Takes a ratio and a number of megapixels, no pixels."""
    table = _table("images", "aspect_ratio, output_megapixels", go_fast=PASSED, disable_safety_checker=PASSED, **more)
    areas = ("0.25", "0.5", "1", "2", "4")
    return _offer(model, name, tariff, table, max_references=5, multiple=16, ratios=RATIOS, areas=areas, extras=_NONE)


_NONE: Final[frozenset[str]] = frozenset()
_SIZE: Final = "aspect_ratio=custom, width, height"

REPLICATE_OFFERS: Final = (
    _offer(
        DEV.slug,
        "flux-2-dev",
        flat("0.012"),
        _table("input_images", _SIZE, go_fast=PASSED, disable_safety_checker=PASSED),
        max_references=4,
        sizes=DEV_SIZES,
        extras=_NONE,
    ),
    _klein(KLEIN_4B.slug, "flux-2-klein-4b", PerMegapixel(Decimal("0.014"), Decimal("0.001"), Decimal("0.001"))),
    _klein(KLEIN_9B.slug, "flux-2-klein-9b", PerMegapixel(Decimal("0.015"), Decimal("0.002"), Decimal("0.002"))),
    _klein(
        KLEIN_BASE_9B.slug,
        "flux-2-klein-9b-base",
        PerMegapixel(Decimal("0.015"), Decimal("0.002"), Decimal("0.002")),
        guidance=clamped("guidance", 1, 10),
    ),
    _offer(
        FLEX.slug,
        "flux-2-flex",
        flat("0.06"),
        _table("input_images", _SIZE, steps=renamed("steps"), guidance=PASSED, prompt_upsampling=PASSED),
        max_references=10,
    ),
    _offer(
        PRO.slug,
        "flux-2-pro",
        PerMegapixel(Decimal("0.03"), Decimal("0.015"), Decimal("0.015")),
        _table("input_images", _SIZE),
        max_references=8,
    ),
    _offer(
        MAX.slug,
        "flux-2-max",
        PerMegapixel(Decimal("0.07"), Decimal("0.03"), Decimal("0.03")),
        _table("input_images", _SIZE),
        max_references=8,
    ),
)
