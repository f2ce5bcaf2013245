"""What providers offer: sizes, refusals, prices, and a treatment for every parameter."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.dialects.native_body import PromptObject
from fluxfarm.catalog import DEV, FLEX, KLEIN_4B, KLEIN_9B, MAX, MODELS, PRO, find_model
from fluxfarm.jobs import JobType
from fluxfarm.offers import KINDS, OFFERS, Behaviour, Offer, find_offer, offers_for, openai_offers
from fluxfarm.pricing import megapixels
from fluxfarm.request import RenderRequest
from fluxfarm.sizes import Size

NAMED = tuple(offer for kind in KINDS for offer in openai_offers(kind, kind, KINDS[kind].models or {DEV.slug: "dev"}))
EVERY = (*OFFERS, *NAMED)
ONE = Size(1024, 1024)


def name_of(offer: Offer) -> str:
    return f"{offer.provider}-{offer.model.rpartition('/')[2]}"


def request_of(model: str, size: Size = ONE, references: int = 0, n: int = 1, steps: int = 28) -> RenderRequest:
    return RenderRequest(
        type=JobType.IMAGE_EDITOR if references else JobType.IMAGE_GENERATOR,
        model=model,
        prompt="a fox",
        width=size.width,
        height=size.height,
        seeds=tuple(range(n)),
        steps=steps,
        guidance=3.5,
        output_format="webp",
        output_quality=80,
        references=tuple(f"ref_{index}" for index in range(references)),
    )


def offer_of(provider: str, model: str) -> Offer:
    return next(offer for offer in EVERY if (offer.provider, offer.model) == (provider, model))


@pytest.mark.parametrize("offer", EVERY, ids=name_of)
def test_every_parameter_has_its_treatment(offer: Offer) -> None:
    assert set(PromptObject.model_fields) <= set(offer.parameters)
    for name, treatment in offer.parameters.items():
        if treatment.behaviour in {Behaviour.RENAMED, Behaviour.CONVERTED}:
            assert treatment.target, name
        else:
            assert treatment.convert is None, name
    assert not offer.extras & set(offer.parameters)
    assert offer.price_source
    assert find_model(offer.model).default_size == ONE
    assert offer.refusal(request_of(offer.model)) is None


def test_each_model_has_one_offer_at_a_provider_and_bfl_has_no_dev() -> None:
    assert len({name_of(offer) for offer in EVERY}) == len(EVERY)
    assert {offer.provider for offer in offers_for(DEV.slug)} == {"fal", "replicate", "cloudflare", "onemin"}
    assert find_offer("bfl", DEV.slug) is None
    assert offers_for("fluxfarm/flux-2-small") == ()


@pytest.mark.parametrize(
    ("provider", "model", "asked", "drawn"),
    [
        ("fal", DEV, "1024x1024", "1024x1024"),
        ("fal", DEV, "1365x768", "1360x768"),  # 16:9 at 1K; 1376 would begin a second megapixel
        ("fal", DEV, "1183x887", "1184x880"),  # 4:3 at 1K, a hair over one
        ("fal", DEV, "1000x700", "1008x704"),
        ("fal", DEV, "256x256", "512x512"),
        ("fal", DEV, "300x200", "768x512"),
        ("fal", DEV, "2048x2048", "2048x2048"),
        ("fal", DEV, "2064x1024", None),
        ("fal", DEV, "64x512", None),  # eight times taller than wide, and 512 at least
        ("replicate", DEV, "1000x700", "1024x704"),
        ("replicate", DEV, "1440x1440", "1440x1440"),
        ("replicate", DEV, "1456x1000", None),
        ("replicate", KLEIN_4B, "1024x1024", "1024x1024"),
        ("replicate", KLEIN_4B, "1365x768", "1360x768"),
        ("replicate", KLEIN_4B, "500x500", "512x512"),
        ("replicate", KLEIN_4B, "2048x1152", "2720x1536"),  # 2.25 megapixels, so the tier of four
        ("replicate", KLEIN_4B, "1500x500", None),
        ("bfl", PRO, "64x64", "64x64"),
        ("bfl", PRO, "2047x2049", "2048x2048"),  # rounding up would leave four megapixels
        ("bfl", PRO, "4096x1024", "4096x1024"),
        ("cloudflare", DEV, "1920x1080", "1920x1088"),
        ("cloudflare", DEV, "2048x1024", None),
        ("onemin", DEV, "512x512", "512x512"),
        ("onemin", DEV, "1183x887", None),  # 4:3 is none of its shapes, and 5:4 has no megapixel to spare
        ("onemin", DEV, "1145x916", "1136x912"),
        ("onemin", DEV, "1536x1024", None),
        ("openai", DEV, "65x65", "80x80"),
        ("lumenfall", DEV, "2048x2048", "2048x2048"),
    ],
)
def test_the_size_that_is_sent(provider: str, model: Any, asked: str, drawn: str | None) -> None:
    size = Size(*map(int, asked.split("x")))
    offer = offer_of(provider, model.slug)
    found = offer.drawn_size(size)
    assert (None if found is None else str(found)) == drawn
    assert (offer.refusal(request_of(model.slug, size)) is None) is (drawn is not None)


@given(st.sampled_from(EVERY), st.integers(64, 2100), st.integers(64, 2100))
def test_what_is_drawn_covers_what_was_asked_and_costs_no_megapixel_more(offer: Offer, width: int, height: int) -> None:
    asked = Size(width, height)
    drawn = offer.drawn_size(asked)
    if drawn is None:
        return
    assert drawn.width % offer.multiple == drawn.height % offer.multiple == 0
    if offer.ratios:
        return
    limits = offer.sizes
    assert limits.min_side <= min(drawn.width, drawn.height)
    assert max(drawn.width, drawn.height) <= limits.max_side
    assert drawn.pixels <= limits.max_pixels
    assert drawn.width > width - offer.multiple
    assert drawn.height > height - offer.multiple
    if min(asked.width, asked.height) >= limits.min_side:
        assert megapixels(drawn) <= megapixels(asked)


@pytest.mark.parametrize(
    ("provider", "model", "references", "words"),
    [
        ("fal", DEV, 5, "at most 4 references"),
        ("replicate", KLEIN_4B, 6, "at most 5 references"),
        ("cloudflare", DEV, 5, "at most 4 references"),
        ("onemin", DEV, 2, "at most 1 references"),
        ("bfl", KLEIN_9B, 5, "at most 4 references"),
        ("aigateway", DEV, 2, "at most 1 references"),
    ],
)
def test_too_many_references_are_refused_in_words(provider: str, model: Any, references: int, words: str) -> None:
    offer = offer_of(provider, model.slug)
    assert words in (offer.refusal(request_of(model.slug, references=references)) or "")
    assert offer.refusal(request_of(model.slug, references=references - 1)) is None


@pytest.mark.parametrize(
    ("provider", "model", "size", "references", "n", "usd"),
    [
        ("fal", DEV, ONE, (), 1, "0.012"),
        ("fal", DEV, Size(1365, 768), (), 3, "0.036"),
        ("fal", DEV, Size(2048, 1024), (), 1, "0.024"),
        ("fal", DEV, ONE, (Size(64, 64), Size(1025, 1024)), 1, "0.048"),  # 1 + 1 + 2
        ("fal", DEV, ONE, (Size(8000, 2000),), 1, "0.060"),  # shrunk to four
        ("fal", KLEIN_9B, ONE, (), 1, "0.006"),
        ("fal", KLEIN_9B, ONE, (ONE,), 1, "0.022"),
        ("fal", PRO, Size(2048, 1024), (ONE,), 1, "0.060"),
        ("fal", MAX, ONE, (), 2, "0.14"),
        ("bfl", PRO, ONE, (), 1, "0.03"),
        ("bfl", PRO, Size(2048, 2048), (ONE, ONE), 1, "0.105"),  # 3 + 3 * 1.5 + 2 * 1.5 credits
        ("bfl", KLEIN_4B, Size(2048, 1024), (), 1, "0.015"),
        ("bfl", FLEX, ONE, (), 1, "0.05"),
        ("cloudflare", DEV, ONE, (), 1, "0.04592"),  # 28 steps, 4 tiles
        ("cloudflare", DEV, ONE, (Size(2000, 1500),) * 4, 1, "0.06944"),  # shrunk to a tile each
        ("cloudflare", KLEIN_4B, Size(1025, 1024), (Size(500, 500),), 1, "0.001207"),
        ("cloudflare", KLEIN_9B, ONE, (ONE,), 1, "0.017"),
        ("deepinfra", DEV, ONE, (), 1, "0.01"),
        ("deepinfra", DEV, Size(1000, 1000), (), 1, "0.009690"),  # 1008 x 1008, rounded up
        ("lumenfall", DEV, ONE, (), 1, "0.012"),
        ("onemin", DEV, ONE, (), 1, "0.012"),
        ("replicate", DEV, ONE, (ONE,), 1, "0.024"),
    ],
)
def test_prices(provider: str, model: Any, size: Size, references: tuple[Size, ...], n: int, usd: str) -> None:
    request = request_of(model.slug, size, len(references), n)
    assert offer_of(provider, model.slug).price(request, references) == Decimal(usd)


def test_a_reference_of_unknown_size_counts_as_one_megapixel() -> None:
    assert offer_of("fal", DEV.slug).price(request_of(DEV.slug, references=2)) == Decimal("0.036")


def test_cloudflares_own_sample_of_25_steps() -> None:
    assert offer_of("cloudflare", DEV.slug).price(request_of(DEV.slug, steps=25)) == Decimal("0.041")


def test_a_configured_endpoint_has_the_models_and_the_price_of_its_configuration() -> None:
    offers = openai_offers("studio", models={"flux-2-klein-4b": "klein"}, price=Decimal("0.002"))
    assert [(offer.provider, offer.model, offer.price_source) for offer in offers] == [
        ("studio", KLEIN_4B.slug, "the settings")
    ]
    assert offers[0].price(request_of(KLEIN_4B.slug, n=3)) == Decimal("0.006")
    assert set(offers[0].endpoints.values()) == {"klein"}


def test_fields_of_other_providers_and_ignored_ones_are_left_out() -> None:
    offer = offer_of("fal", PRO.slug)
    given_values = {
        "prompt": "a",
        "guidance": 3.0,
        "go_fast": True,
        "n": 2,
        "loras": [],
        "safety_tolerance": "4",
        "x": 1,
    }
    assert offer.fields(given_values) == {"prompt": "a", "safety_tolerance": "4"}


def test_the_catalogue_knows_every_model_that_is_offered() -> None:
    assert {offer.model for offer in EVERY} <= {model.slug for model in MODELS}
