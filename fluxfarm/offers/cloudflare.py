"""Cloudflare Workers AI: the changelog of 2025-11-25 and 2026-01-28, and platform/pricing."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from fluxfarm.catalog import DEV, KLEIN_4B, KLEIN_9B
from fluxfarm.jobs import JobType
from fluxfarm.offers.offer import Offer
from fluxfarm.offers.treatments import PASSED, Treatment, converted, parameters, renamed, wrapped
from fluxfarm.pricing import PerMegapixel, PerTile, Tariff
from fluxfarm.sizes import SizeLimits

LARGEST_SEED: Final = 2**32 - 1
SIZES: Final = SizeLimits(min_side=256, max_side=1920, max_pixels=1920 * 1920)
LARGEST_REFERENCE: Final = 511  #: pixels a side: each reference must be smaller than 512 x 512


def _table(**more: Treatment) -> Mapping[str, Treatment]:
    seed = wrapped("seed", LARGEST_SEED)
    images = converted("input_image_0…3, shrunk below 512 x 512")
    return parameters(size=converted("width, height"), seed=seed, images=images, **more)


def _offer(model: str, name: str, tariff: Tariff, table: Mapping[str, Treatment]) -> Offer:
    return Offer(
        provider="cloudflare",
        model=model,
        endpoints=dict.fromkeys(JobType, f"@cf/black-forest-labs/{name}"),
        sizes=SIZES,
        multiple=16,
        max_references=4,
        reference_side=LARGEST_REFERENCE,
        formats=("jpeg",),
        parameters=table,
        tariff=tariff,
        price_source="developers.cloudflare.com/workers-ai/platform/pricing, 2026-11",
    )


CLOUDFLARE_OFFERS: Final = (
    _offer(
        DEV.slug,
        "flux-2-dev",
        PerTile(Decimal("0.00041"), Decimal("0.00021"), each_step=True),
        _table(steps=renamed("steps"), guidance=PASSED),
    ),
    _offer(
        KLEIN_4B.slug,
        "flux-2-klein-4b",
        PerTile(Decimal("0.000287"), Decimal("0.000059"), each_step=False),
        _table(guidance=PASSED),
    ),
    _offer(
        KLEIN_9B.slug,
        "flux-2-klein-9b",
        PerMegapixel(Decimal("0.015"), Decimal("0.002"), Decimal("0.002")),
        _table(guidance=PASSED),
    ),
)
