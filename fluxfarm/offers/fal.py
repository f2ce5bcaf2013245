"""fal's FLUX.2 endpoints: the types of ``@fal-ai/client`` 1.10, the pages of the models on fal.ai.

The pages publish steps for klein only (4 to 8); the other ranges are those of fal's FLUX.1 pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from fluxfarm.catalog import DEV, FLEX, KLEIN_4B, KLEIN_9B, KLEIN_BASE_4B, MAX, PRO
from fluxfarm.jobs import JobType
from fluxfarm.offers.offer import Offer
from fluxfarm.offers.treatments import PASSED, Treatment, clamped, converted, inverted, parameters, renamed
from fluxfarm.pricing import PerMegapixel, Tariff, flat
from fluxfarm.sizes import MEGAPIXEL, SizeLimits

SIZES: Final = SizeLimits(min_side=512, max_side=2048, max_pixels=4 * MEGAPIXEL)
MULTIPLE: Final = 16  #: of FLUX.2 itself; fal names none
SAFETY: Final = frozenset({"enable_safety_checker"})
OPEN_FORMATS: Final = ("png", "jpeg", "webp")
HOSTED_FORMATS: Final = ("png", "jpeg")


def _table(**more: Treatment) -> Mapping[str, Treatment]:
    return parameters(
        size=converted("image_size"),
        images=converted("image_urls"),
        disable_safety_checker=inverted("enable_safety_checker"),
        **more,
    )


def _offer(model: str, app: str, tariff: Tariff, table: Mapping[str, Treatment], **more: Any) -> Offer:
    found: dict[str, Any] = {"max_references": 4, "formats": OPEN_FORMATS, "extras": SAFETY} | more
    return Offer(
        provider="fal",
        model=model,
        endpoints={JobType.IMAGE_GENERATOR: app, JobType.IMAGE_EDITOR: f"{app}/edit"},
        sizes=SIZES,
        multiple=MULTIPLE,
        parameters=table,
        tariff=tariff,
        price_source=f"fal.ai/models/{app}, 2026-11",
        **found,
    )


_KLEIN: Final = _table(steps=clamped("num_inference_steps", 4, 8))
_FIXED: Final = _table()
_HOSTED: Final = SAFETY | {"safety_tolerance"}

FAL_OFFERS: Final = (
    _offer(
        DEV.slug,
        "fal-ai/flux-2",
        flat("0.012"),
        _table(
            steps=PASSED,
            guidance=clamped("guidance_scale", 1, 20),
            acceleration=PASSED,
            prompt_upsampling=renamed("enable_prompt_expansion"),
        ),
        extras=SAFETY | {"enable_prompt_expansion"},
    ),
    _offer(
        KLEIN_4B.slug,
        "fal-ai/flux-2/klein/4b",
        PerMegapixel(Decimal("0.005"), Decimal("0.005"), Decimal("0.010"), edited=Decimal("0.010")),
        _KLEIN,
    ),
    _offer(
        KLEIN_9B.slug,
        "fal-ai/flux-2/klein/9b",
        PerMegapixel(Decimal("0.006"), Decimal("0.006"), Decimal("0.011"), edited=Decimal("0.011")),
        _KLEIN,
    ),
    _offer(
        KLEIN_BASE_4B.slug,
        "fal-ai/flux-2/klein/4b/base",
        flat("0.009"),
        _table(steps=PASSED, guidance=clamped("guidance_scale", 1, 20), acceleration=PASSED),
        extras=SAFETY | {"negative_prompt"},
    ),
    _offer(
        FLEX.slug,
        "fal-ai/flux-2-flex",
        flat("0.05"),
        _table(steps=PASSED, guidance=renamed("guidance_scale")),
        max_references=10,
        formats=HOSTED_FORMATS,
        extras=_HOSTED,
    ),
    _offer(
        PRO.slug,
        "fal-ai/flux-2-pro",
        PerMegapixel(Decimal("0.03"), Decimal("0.015"), Decimal("0.015")),
        _FIXED,
        max_references=8,
        formats=HOSTED_FORMATS,
        extras=_HOSTED,
    ),
    _offer(
        MAX.slug,
        "fal-ai/flux-2-max",
        PerMegapixel(Decimal("0.07"), Decimal("0.03"), Decimal("0.03")),
        _FIXED,
        max_references=8,
        formats=HOSTED_FORMATS,
        extras=_HOSTED,
    ),
)
