"""Named endpoints of the OpenAI shape: who they are by default, and the offers that a configuration makes of one.

AIgateway.sh, Lumenfall, Together, DeepInfra, another Fluxfarm: one protocol, but each takes other fields beside
``prompt``, ``model``, ``n`` and ``size``. ``kind`` names the habits; an endpoint that is none of
these is of kind ``openai``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

from fluxfarm.catalog import DEV, FLEX, KLEIN_4B, KLEIN_9B, MAX, PRO, find_model
from fluxfarm.jobs import JobType
from fluxfarm.offers.offer import Offer
from fluxfarm.offers.treatments import IGNORED, PASSED, Treatment, clamped, converted, parameters, renamed, wrapped
from fluxfarm.pricing import PerArea, PerImage, PerMegapixel, Tariff, flat
from fluxfarm.sizes import MEGAPIXEL, SizeLimits

LARGEST_SEED: Final = 2**31 - 1
_USUAL: Final = SizeLimits(min_side=256, max_side=2048, max_pixels=4 * MEGAPIXEL)
_WIDE: Final = SizeLimits(min_side=64, max_side=4096, max_pixels=4 * MEGAPIXEL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The habits of one service: where it is, what it calls the models, which fields it takes.

    ``parameters["images"]`` names the part or the field of references, ``parameters["size"]`` how a size is written.
    """

    base_url: str = ""
    models: Mapping[str, str] = field(default_factory=dict)  #: slug to its own id
    parameters: Mapping[str, Treatment]
    sizes: SizeLimits = _USUAL
    max_references: int
    constants: Mapping[str, Any] = field(default_factory=dict)
    extras: frozenset[str] = frozenset()
    tariffs: Mapping[str, Tariff] = field(default_factory=dict)  #: by slug
    result_hosts: tuple[str, ...] = ()


_SEED: Final = wrapped("seed", LARGEST_SEED)
_BASE64: Final = {"response_format": "b64_json"}
_PNG: Final = _BASE64 | {"output_format": "png"}
_LUMENFALL: Final[dict[str, Tariff]] = {
    DEV.slug: flat("0.012"),
    FLEX.slug: flat("0.05"),
    PRO.slug: PerMegapixel(Decimal("0.03"), Decimal("0.015"), Decimal("0.015")),
    MAX.slug: PerMegapixel(Decimal("0.07"), Decimal("0.03"), Decimal("0.03")),
    KLEIN_4B.slug: PerMegapixel(Decimal("0.005"), Decimal("0.005"), Decimal("0.010"), edited=Decimal("0.010")),
    KLEIN_9B.slug: PerMegapixel(Decimal("0.006"), Decimal("0.006"), Decimal("0.011"), edited=Decimal("0.011")),
}

KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "openai": Kind(
            parameters=parameters(size=converted("size"), steps=PASSED, guidance=PASSED, images=converted("image[]")),
            sizes=_WIDE,
            max_references=10,
            constants=_PNG,
        ),
        "aigateway": Kind(
            base_url="https://api.aigateway.sh/v1",
            models={DEV.slug: DEV.slug, FLEX.slug: FLEX.slug},
            parameters=parameters(size=converted("size"), seed=IGNORED, images=converted("image")),
            max_references=1,
            constants=_BASE64,
            extras=frozenset({"quality", "style"}),
            result_hosts=(".aigateway.sh",),
        ),
        "lumenfall": Kind(
            base_url="https://api.lumenfall.ai/openai/v1",
            models={
                DEV.slug: "flux.2-dev",
                FLEX.slug: "flux.2-flex",
                PRO.slug: "flux.2-pro",
                MAX.slug: "flux.2-max",
                KLEIN_4B.slug: "flux.2-klein-4b",
                KLEIN_9B.slug: "flux.2-klein-9b",
            },
            parameters=parameters(
                size=converted("size"),
                seed=_SEED,
                steps=PASSED,
                guidance=renamed("cfg_scale"),
                images=converted("image"),
                prompt_upsampling=converted("prompt_enhancement", lambda on: "on" if on else "off"),
                acceleration=PASSED,
                go_fast=PASSED,
                disable_safety_checker=PASSED,
            ),
            max_references=4,
            constants=_PNG,
            extras=frozenset({"enable_safety_checker"}),
            tariffs=_LUMENFALL,
            result_hosts=(".lumenfall.ai",),
        ),
        "together": Kind(
            base_url="https://api.together.xyz/v1",
            models={
                DEV.slug: "black-forest-labs/FLUX.2-dev",
                FLEX.slug: "black-forest-labs/FLUX.2-flex",
                PRO.slug: "black-forest-labs/FLUX.2-pro",
                MAX.slug: "black-forest-labs/FLUX.2-max",
            },
            parameters=parameters(
                size=converted("width, height"),
                seed=_SEED,
                steps=clamped("steps", 1, 50),
                guidance=renamed("guidance_scale"),
                images=converted("reference_images"),
                disable_safety_checker=PASSED,
            ),
            max_references=4,
            constants={"response_format": "base64", "output_format": "png"},
            extras=frozenset({"negative_prompt"}),
            result_hosts=(".together.xyz", ".together.ai"),
        ),
        "deepinfra": Kind(
            base_url="https://api.deepinfra.com/v1/openai",
            models={DEV.slug: "black-forest-labs/FLUX-2-dev"},
            parameters=parameters(size=converted("size"), seed=IGNORED, images=converted("image")),
            max_references=4,
            constants=_BASE64,
            tariffs={DEV.slug: PerArea(Decimal("0.01"))},
            result_hosts=(".deepinfra.com",),
        ),
    }
)


def openai_offers(
    name: str, kind: str = "openai", models: Mapping[str, str] | None = None, price: Decimal | None = None
) -> tuple[Offer, ...]:
    """What the endpoint called ``name`` offers; ``models`` are slugs to its own ids, by default those of its kind.

    ``price`` is USD an image. Without one the kind's price list counts, or an estimate by the model's hosted price.

    Raises:
        ModelNotFound: a slug that the catalogue does not know.
        KeyError: no such kind.
    """
    habits = KINDS[kind]
    found = {find_model(slug).slug: remote for slug, remote in (models or habits.models).items()}
    return tuple(_offer(name, habits, slug, remote, price) for slug, remote in found.items())


def _offer(name: str, habits: Kind, slug: str, remote: str, price: Decimal | None) -> Offer:
    listed = habits.tariffs.get(slug)
    tariff = PerImage(price) if price is not None else listed or _LUMENFALL.get(slug, flat("0.012"))
    told = f"the price list of {habits.base_url}, 2026-11" if listed else "estimate, after lumenfall.ai/models, 2026-11"
    return Offer(
        provider=name,
        model=slug,
        endpoints=dict.fromkeys(JobType, remote),
        sizes=habits.sizes,
        multiple=16,
        max_references=habits.max_references,
        formats=("png",),
        parameters=habits.parameters,
        tariff=tariff,
        price_source="the settings" if price is not None else told,
        extras=habits.extras,
        constants=habits.constants,
    )
