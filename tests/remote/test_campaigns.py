"""A campaign that leaves the farm: who may render it, for how much, and what its plan warns of."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from fluxfarm.settings import Settings
from storage.database import Database
from tests.api.campaigns_made import files, spec
from tests.money import assert_balanced
from tests.remote.office import DEV, Office, opened
from tests.stubs.fal import FalStub
from tests.stubs.replicate import ReplicateStub


@pytest.fixture
def office(settings: Settings, database: Database, api_key: str) -> Iterator[Office]:
    with opened(settings, database, api_key, FalStub(), ReplicateStub()) as made:
        yield made
        assert_balanced(database)


def plan(office: Office, **changes: Any) -> dict[str, Any]:
    reply = office.api.post("/v1/campaigns?dryRun=true", json=spec(model=DEV, **changes))
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()["plan"]
    return found


def test_a_campaign_falls_back_within_its_price(office: Office) -> None:
    feed = [{"sku": "A1", "product": "Olive oil"}, {"sku": "B2", "product": "Honey"}]
    asked = spec(model=DEV, rows=feed, placements=["512x512"], provider="fal", fallback=["replicate"], max_cost="0.02")
    assert office.api.post("/v1/campaigns", json=asked).status_code == 201
    office.stubs["fal"].plan.append("failed-internal")
    records = [office.finish(one["job"]) for one in files(office.api)]
    assert [record["status"] for record in records] == ["SUCCESS", "SUCCESS"]
    asked_of = sorted([attempt["provider"] for attempt in record["attempts"]] for record in records)
    assert asked_of == [["fal"], ["fal", "replicate"]]
    assert Decimal(office.api.get("/v1/campaigns/spring").json()["campaign"]["spent"]) == Decimal("0.024")


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"max_cost": "0.001"}, "no_route", "provider"),
        ({"provider": "nobody"}, "invalid_field", "provider"),
        ({"provider": "fal", "fallback": ["nobody"]}, "invalid_field", "fallback.0"),
        ({"provider": "auto", "fallback": ["local"]}, "invalid_field", "fallback.0"),
        ({"max_cost": -1}, "invalid_campaign", "max_cost"),
    ],
)
def test_who_may_not_render_is_said(office: Office, changes: dict[str, Any], code: str, param: str) -> None:
    reply = office.api.post("/v1/campaigns", json=spec(model=DEV, **changes))
    assert (reply.status_code, reply.json()["code"], reply.json()["param"]) == (400, code, param), reply.text


def test_a_shape_that_nobody_draws_is_named_with_its_row(office: Office) -> None:
    asked = spec(model=DEV, placements=["512x512", "banner-leaderboard"])
    reply = office.api.post("/v1/campaigns?dryRun=true", json=asked)
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_campaign"), reply.text
    (issue,) = reply.json()["issues"]
    assert (issue["param"], issue["row"]) == ("placements", 1)
    assert issue["message"].startswith("728x90: Nobody here can render this")


def test_the_plan_warns_of_the_licence_and_of_what_the_provider_does_otherwise(office: Office) -> None:
    found = {(one["param"], one["total"]): one for one in plan(office, steps=20, provider="fal")["rowWarnings"]}
    licence = found["model", 3]
    assert licence["rows"] == [1, 2, 3]
    assert "may not be sold" in licence["message"]
    drawn = [one["message"] for one in plan(office, provider="fal")["rowWarnings"] if one["param"] == "placements"]
    assert drawn == [
        "fal draws 64x64 as 512x512; the farm scales and crops it.",
        "fal draws 128x64 as 1024x512; the farm scales and crops it.",
    ]
    assert not [one for one in found if one[0] == "steps"]  # fal takes them
    ignored = plan(office, steps=20, guidance=3.0, provider="replicate", placements=["512x512"])["rowWarnings"]
    assert {one["param"] for one in ignored} == {"model", "steps", "guidance"}
