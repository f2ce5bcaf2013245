"""1min.ai: docs.1min.ai, the generator and editor pages of FLUX.2.

It sells credits and publishes no price in USD; the estimates are those of Black Forest Labs and fal, and a deployment
states what it pays in its settings. The editor takes one picture; ``prompt_strength`` is its own field, sent as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from fluxfarm.catalog import DEV, FLEX, MAX, PRO
from fluxfarm.jobs import JobType
from fluxfarm.offers.offer import Offer
from fluxfarm.offers.treatments import PASSED, Treatment, clamped, converted, parameters, wrapped
from fluxfarm.pricing import PerImage
from fluxfarm.sizes import MEGAPIXEL, SizeLimits

LARGEST_SEED: Final = 2**31 - 1  #: its server is JavaScript, where numbers are exact up to 2^53 only
SIZES: Final = SizeLimits(min_side=256, max_side=1536, max_pixels=MEGAPIXEL)
RATIOS: Final = ("1:1", "16:9", "9:16", "3:2", "2:3", "4:5", "5:4")


def _table(size: str, **more: Treatment) -> Mapping[str, Treatment]:
    seed = wrapped("seed", LARGEST_SEED)
    return parameters(size=converted(size), seed=seed, images=converted("imageUrl"), **more)


def _offer(
    model: str, areas: tuple[str, ...], estimate: str, table: Mapping[str, Treatment], extras: frozenset[str]
) -> Offer:
    return Offer(
        provider="onemin",
        model=model,
        endpoints=dict.fromkeys(JobType, model),
        sizes=SIZES,
        multiple=16,
        max_references=1,
        formats=("png", "jpeg", "webp") if model == DEV.slug else ("png", "jpeg"),
        parameters=table,
        tariff=PerImage(Decimal(estimate)),
        price_source="estimate: 1min.ai sells credits and publishes no price in USD",
        ratios=RATIOS,
        areas=areas,
        extras=extras,
        constants={"output_format": "png"},
    )


def _hosted(model: str, estimate: str, fewest_steps: int) -> Offer:
    """pro, flex and max: ``steps`` from their own minimum, no choice of area."""
    table = _table(
        "aspect_ratio",
        steps=clamped("steps", fewest_steps, 50),
        guidance=clamped("guidance", 2, 5),
        prompt_upsampling=PASSED,
    )
    return _offer(model, ("1",), estimate, table, frozenset({"safety_tolerance"}))


ONEMIN_OFFERS: Final = (
    _offer(
        DEV.slug,
        ("0.25", "1"),
        "0.012",
        _table(
            "aspect_ratio, megapixels",
            steps=PASSED,
            guidance=PASSED,
            prompt_strength=PASSED,
            go_fast=PASSED,
            disable_safety_checker=PASSED,
        ),
        frozenset(),
    ),
    _hosted(FLEX.slug, "0.06", 6),
    _hosted(PRO.slug, "0.03", 15),
    _hosted(MAX.slug, "0.07", 15),
)
