"""Budgets, dry runs, routes and the leaderboard, over the API."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from fluxfarm.settings import Settings
from storage.database import Database
from storage.records import Tenant
from storage.repository import ledger
from tests.api.samples import rows
from tests.money import assert_balanced
from tests.remote.office import DEV, Office, opened, order
from tests.stubs.fal import FalStub
from tests.stubs.replicate import ReplicateStub

PRICE = Decimal("0.012")


@pytest.fixture
def office(settings: Settings, database: Database, api_key: str) -> Iterator[Office]:
    with opened(settings, database, api_key, FalStub(), ReplicateStub()) as made:
        yield made
        assert_balanced(database)


def cap(office: Office, tenant: Tenant, amount: str) -> None:
    reply = office.api.patch(f"/v1/tenants/{tenant.id}", json={"budget": float(amount)})
    assert reply.status_code == 200, reply.text
    assert Decimal(reply.json()["budget"]) == Decimal(amount)


def usage(office: Office, **parameters: str) -> dict[str, Any]:
    reply = office.api.get("/v1/usage", params=parameters)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def test_a_budget_answers_402_before_anything_is_spent(office: Office, tenant: Tenant) -> None:
    cap(office, tenant, "0.05")
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: office.api.post("/v1/jobs", json=order()), range(20)))
    assert sorted(reply.status_code for reply in replies) == [202] * 4 + [402] * 16
    refused = next(reply for reply in replies if reply.status_code == 402)
    assert (refused.json()["code"], refused.json()["retryable"]) == ("budget_exceeded", False)
    assert office.stubs["fal"].submits == 0
    assert Decimal(usage(office)["left"]) == Decimal("0.002")
    for reply in replies:
        if reply.status_code == 202:
            assert office.finish(reply.json()["aiRecord"]["uuid"])["status"] == "SUCCESS"
    found = usage(office)
    assert (Decimal(found["spent"]), Decimal(found["reserved"])) == (4 * PRICE, Decimal(0))
    assert [(one["name"], Decimal(one["amount"]), one["jobs"]) for one in found["byProvider"]] == [
        ("fal", 4 * PRICE, 4)
    ]
    assert len(found["byDay"]) == 1
    assert usage(office, until="2020-01-01T00:00:00Z", since="2019-01-01T00:00:00Z")["byDay"] == []
    assert office.api.get("/v1/usage", params={"since": "2030-01-01"}).json()["code"] == "invalid_field"


def test_a_dry_run_tells_everything_and_does_nothing(office: Office, database: Database, tenant: Tenant) -> None:
    before = rows(database)
    body = order(prompt_object={"size": "1500x1000", "n": 2})
    reply = office.api.post("/v1/jobs", params={"dryRun": "true"}, json=body)
    assert reply.status_code == 200, reply.text
    found = reply.json()
    assert (found["provider"], Decimal(found["price"]), found["queue"]) == ("fal", 4 * PRICE, "remote")
    assert {one["provider"]: bool(one["refused"]) for one in found["route"]["candidates"]} == {
        "local": True,
        "fal": False,
        "replicate": True,  # draws up to 1440 pixels a side
    }
    assert rows(database) == before
    with database.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM ledger_entries")) == 0
        ledger.set_cap(session, tenant.id, "", PRICE)
    assert office.api.post("/v1/jobs", params={"dryRun": "true"}, json=body).status_code == 402
    assert office.stubs["fal"].submits == 0


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"maxCost": "0.011"}, 400, "fal costs 0.012 USD, above maxCost."),
        ({"provider": "local"}, 400, "no weights"),
        ({"provider": "bfl"}, 400, "bfl has no key"),
        ({"provider": "nobody"}, 400, "take auto, local or one of"),
        ({"provider": "fal", "fallback": ["fal"]}, 400, "each once"),
        ({"provider": "fal", "maxCost": 0.012}, 202, ""),
        ({"fallback": ["replicate"]}, 202, ""),
    ],
)
def test_no_route_fails_at_once_with_the_reason(
    office: Office, changes: dict[str, Any], status: int, words: str
) -> None:
    reply = office.api.post("/v1/jobs", json=order(**changes))
    assert reply.status_code == status, reply.text
    assert words in reply.json().get("detail", "")


def test_the_leaderboard_and_the_catalogue_tell_what_is_known(office: Office) -> None:
    assert office.render()["status"] == "SUCCESS"
    found = {(one["provider"], one["model"]): one for one in office.api.get("/v1/providers").json()["data"]}
    fal = found["fal", DEV]
    assert (fal["attempts"], fal["success"], fal["configured"]) == (1, 1.0, True)
    assert 0 < fal["firstByte"] <= fal["p50"] <= fal["p95"]
    assert (Decimal(fal["price"]), Decimal(fal["paid"])) == (PRICE, PRICE)
    assert fal["breaker"]["state"] == "closed"
    assert found["local", None]["attempts"] == 0
    assert found["replicate", DEV]["success"] is None
    assert office.api.get("/v1/providers", params={"window": "7d"}).status_code == 400
    (dev,) = [one for one in office.api.get(f"/v1/models/{DEV}").json()["providers"] if one["provider"] == "fal"]
    assert dev["parameters"]["guidance"] == {"behaviour": "converted", "target": "guidance_scale"}
    assert dev["parameters"]["n"]["behaviour"] == "emulated"
