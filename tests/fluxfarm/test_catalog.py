"""The catalogue: every name that the seeds use is found, and each profile agrees with itself."""

from __future__ import annotations

from collections import Counter

import pytest

from fluxfarm.catalog import BUILT_HERE, DEV, FLEX, MODELS, ModelProfile, Range, find_model
from fluxfarm.errors import InvalidField, ModelNotFound
from fluxfarm.request import OUTPUT_FORMATS
from fluxfarm.sizes import Size

SEED_NAMES = {
    "black-forest-labs/flux-2-dev": DEV,  # 000 AIgateway, 004 1min.ai
    "black-forest-labs/flux-2-flex": FLEX,  # 001
    "flux.2-dev": DEV,  # 002 Lumenfall, and its two providers
    "fal/flux.2-dev-edit": DEV,
    "replicate/flux.2-dev": DEV,
    "@cf/black-forest-labs/flux-2-dev": DEV,  # 003 Cloudflare
    "flux-2-dev": DEV,
}
NON_COMMERCIAL = {
    "black-forest-labs/flux-2-dev",
    "black-forest-labs/flux-2-klein-9b",
    "black-forest-labs/flux-2-klein-base-9b",
}
each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.slug)


@pytest.mark.parametrize(("name", "model"), SEED_NAMES.items())
def test_every_name_of_the_seeds_is_known(name: str, model: ModelProfile) -> None:
    assert find_model(name) is model
    assert find_model(f" {name.upper()} ") is model


@each_model
def test_a_model_is_found_by_its_slug_and_each_alias(model: ModelProfile) -> None:
    for name in (model.slug, *model.aliases):
        assert find_model(name) is model


def test_no_name_stands_for_two_models() -> None:
    counts = Counter(name.lower() for model in MODELS for name in {model.slug, *model.aliases})
    assert [name for name, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("name", ["", "flux", "black-forest-labs/flux-1-dev", "x" * 10_000, "flux-2-dev\0"])
def test_an_unknown_name_is_refused_briefly(name: str) -> None:
    with pytest.raises(ModelNotFound, match="GET /v1/models") as caught:
        find_model(name)
    assert caught.value.param == "model"
    assert len(caught.value.message) < 300


@each_model
def test_a_profile_agrees_with_itself(model: ModelProfile) -> None:
    for number in (model.steps, model.guidance):
        assert number.low <= number.default <= number.high
    assert model.sizes.check(model.default_size, model.slug) == model.default_size
    assert (model.guidance_kind == "fixed") == (model.guidance.low == model.guidance.high)
    assert (model.guidance_kind == "remote") == (not model.is_local)
    assert model.default_format in OUTPUT_FORMATS
    assert 1 <= model.max_references <= 10
    assert (model.hub_id is not None) == (model.is_local and model.slug not in BUILT_HERE)


@each_model
def test_licences_are_the_real_ones(model: ModelProfile) -> None:
    assert model.commercial == (model.slug not in NON_COMMERCIAL)
    assert ("Non-Commercial" in model.licence) == (not model.commercial)
    if "klein-4b" in model.slug or "base-4b" in model.slug:
        assert model.licence == "Apache-2.0"


def test_dev_takes_what_the_seeds_tell() -> None:
    assert (DEV.steps.low, DEV.steps.high, DEV.steps.default) == (1, 50, 28)
    assert (DEV.guidance.low, DEV.guidance.high) == (0, 10)
    assert (DEV.default_format, DEV.default_quality) == ("webp", 80)
    assert DEV.sizes.check(Size(2048, 2048), DEV.slug) == Size(2048, 2048)


def test_a_range_gives_the_value_or_the_default_or_says_what_it_takes() -> None:
    steps = Range(1, 50, 28)
    assert [steps.check(value, "steps", "m") for value in (None, 1, 50)] == [28, 1, 50]
    for value in (0, 51, float("nan"), float("inf")):
        with pytest.raises(InvalidField, match="m takes 1 to 50") as caught:
            steps.check(value, "steps", "m")
        assert caught.value.param == "steps"
    with pytest.raises(InvalidField, match="which is fixed"):
        Range(1, 1, 1).check(2, "guidance", "m")
