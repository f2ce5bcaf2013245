"""The remote providers of the settings: the operator's own prices."""

from __future__ import annotations

from decimal import Decimal

import pytest
from pydantic import SecretStr

from api.routes.providers import list_price
from fluxfarm.catalog import DEV, PRO
from fluxfarm.errors import InvalidField
from fluxfarm.remotes import Remotes
from fluxfarm.settings import Settings


def made(prices: str) -> Remotes:
    endpoints = SecretStr("studio=https://studio.example.com/v1=key|price=0.03")
    return Remotes.from_settings(Settings().model_copy(update={"prices": prices, "openai_endpoints": endpoints}))


def test_an_operators_price_stands_in_place_of_any_price_list() -> None:
    plain = made("")
    remotes = made(f"fal/{DEV.slug}=0.010, studio/{DEV.slug}=0.02,")
    for name, usd in (("fal", "0.010"), ("studio", "0.02")):
        offer = remotes[name].offer(DEV.slug)
        assert offer is not None
        assert (list_price(offer), offer.price_source) == (Decimal(usd), "the settings")
    assert remotes["fal"].offer(PRO.slug) == plain["fal"].offer(PRO.slug)
    assert [one.model for one in remotes["fal"].offers] == [one.model for one in plain["fal"].offers]


@pytest.mark.parametrize(
    "entry",
    [
        "fal=0.01",
        f"nobody/{DEV.slug}=0.01",
        "fal/nothing=0.01",
        "fal/fluxfarm/flux-2-small=0.01",
        f"fal/{DEV.slug}",
        f"fal/{DEV.slug}=-1",
        f"fal/{DEV.slug}=NaN",
    ],
)
def test_a_price_that_cannot_be_read_is_named(entry: str) -> None:
    with pytest.raises(InvalidField) as caught:
        made(entry)
    assert caught.value.param == "FLUXFARM_PRICES"
    assert entry in caught.value.message
