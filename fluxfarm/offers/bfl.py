"""Black Forest Labs' own API: docs.bfl.ai, and the price list of its skills repository (1 credit is $0.01).

There is no hosted [dev]: it is local only, so this provider never stands in for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from fluxfarm.catalog import FLEX, KLEIN_4B, KLEIN_9B, MAX, PRO
from fluxfarm.jobs import JobType
from fluxfarm.offers.offer import Offer
from fluxfarm.offers.treatments import PASSED, Treatment, clamped, converted, inverted, parameters, renamed, wrapped
from fluxfarm.pricing import PerMegapixel
from fluxfarm.sizes import MEGAPIXEL, SizeLimits

LARGEST_SEED: Final = 2**32 - 1
SIZES: Final = SizeLimits(min_side=64, max_side=4096, max_pixels=4 * MEGAPIXEL)
USUAL: Final = 2  #: safety_tolerance, 0 to 5; moderation cannot be switched off
MOST_TOLERANT: Final = 5
TOTAL_MEGAPIXELS: Final = 9  #: of all references and the picture together; larger references are shrunk


def _credits(first: str, further: str) -> PerMegapixel:
    """Black Forest Labs' own unit: ``first + (output megapixels - 1) * further + input megapixels * further``."""
    more = Decimal(further) / 100
    return PerMegapixel(Decimal(first) / 100, more, more)


def _table(**more: Treatment) -> Mapping[str, Treatment]:
    seed = wrapped("seed", LARGEST_SEED)
    return parameters(
        size=converted("width, height"),
        seed=seed,
        images=converted("input_image, input_image_2…"),
        disable_safety_checker=converted("safety_tolerance", lambda off: MOST_TOLERANT if off else USUAL),
        **more,
    )


def _offer(model: str, endpoint: str, price: PerMegapixel, references: int, table: Mapping[str, Treatment]) -> Offer:
    return Offer(
        provider="bfl",
        model=model,
        endpoints=dict.fromkeys(JobType, endpoint),
        sizes=SIZES,
        multiple=16,
        max_references=references,
        formats=("png", "jpeg"),
        parameters=table,
        tariff=price,
        price_source="docs.bfl.ai/quick_start/pricing, 2026-11",
        extras=frozenset({"safety_tolerance"}),
    )


_REWRITTEN: Final = _table(prompt_upsampling=inverted("disable_pup"))

BFL_OFFERS: Final = (
    _offer(
        FLEX.slug,
        "flux-2-flex",
        _credits("5", "5"),
        8,
        _table(steps=renamed("steps"), guidance=clamped("guidance", 1.5, 10), prompt_upsampling=PASSED),
    ),
    _offer(PRO.slug, "flux-2-pro", _credits("3", "1.5"), 8, _REWRITTEN),
    _offer(MAX.slug, "flux-2-max", _credits("7", "3"), 8, _REWRITTEN),
    _offer(KLEIN_4B.slug, "flux-2-klein-4b", _credits("1.4", "0.1"), 4, _table()),
    _offer(KLEIN_9B.slug, "flux-2-klein-9b", _credits("1.5", "0.2"), 4, _table()),
)
