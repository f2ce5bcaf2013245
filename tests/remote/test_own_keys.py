"""A tenant's own key at a provider: sealed, used, never shown, never charged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from fluxfarm.settings import Settings
from storage.database import Database
from storage.records import Tenant
from storage.repository import ledger
from tests.money import assert_balanced
from tests.remote.office import Office, opened
from tests.stubs.fal import FalStub
from tests.stubs.server import KEY

KEY_URL = "/v1/providers/fal/key"


@pytest.fixture
def office(settings: Settings, database: Database, api_key: str) -> Iterator[Office]:
    """A farm that has no key of its own."""
    with opened(settings, database, api_key, FalStub(), fal_key=SecretStr(""), remote="on") as made:
        yield made
        assert_balanced(database)


def test_a_job_with_the_tenants_own_key_costs_it_nothing_here(
    office: Office, database: Database, tenant: Tenant, logged: Callable[[], str]
) -> None:
    with database.transaction() as session:
        ledger.set_cap(session, tenant.id, "", Decimal(0))
    refused = office.api.post("/v1/jobs", json={**_order(), "provider": "fal"})
    assert (refused.status_code, refused.json()["code"]) == (400, "no_route")
    reply = office.api.put(KEY_URL, json={"key": KEY})
    assert reply.status_code == 200, reply.text
    assert (reply.json()["hint"], reply.json()["version"]) == (KEY[-4:], 1)
    record = office.render()
    assert (record["status"], record["attempts"][0]["provider"]) == ("SUCCESS", "fal"), record
    assert Decimal(record["cost"]) == 0
    (call,) = office.calls(record["uuid"])
    assert (call.account, call.price) == (str(tenant.id), Decimal(0))
    with database.transaction() as session:
        (sealed,) = session.scalars(text("SELECT sealed FROM provider_accounts"))
    said = logged()
    assert record["uuid"] in said
    told = (reply.text, office.api.get(KEY_URL).text, sealed, said, str(record))
    assert not any(KEY in one for one in told)


def test_a_key_is_rotated_and_forgotten(office: Office) -> None:
    assert office.api.get(KEY_URL).status_code == 404
    office.api.put(KEY_URL, json={"key": "a-wrong-key-of-some-length"})
    record = office.render(provider="fal")
    assert record["error"]["code"] == "provider_account"
    assert "a-wrong-key" not in str(record)
    assert office.api.put(KEY_URL, json={"key": KEY}).json()["version"] == 2  # and its breaker starts afresh
    assert office.render(provider="fal")["status"] == "SUCCESS"
    assert office.api.delete(KEY_URL).status_code == 204
    assert office.api.delete(KEY_URL).status_code == 404


@pytest.mark.parametrize("key", ["", "with space", "übel", "x" * 501])
def test_a_key_that_cannot_be_one_is_refused(office: Office, key: str) -> None:
    reply = office.api.put(KEY_URL, json={"key": key})
    assert (reply.status_code, reply.json()["param"]) == (400, "key")
    assert office.api.put("/v1/providers/nobody/key", json={"key": KEY}).status_code == 404


def _order() -> dict[str, object]:
    asked = {"prompt": "a fox", "size": "512x512"}
    return {"type": "IMAGE_GENERATOR", "model": "black-forest-labs/flux-2-dev", "promptObject": asked}
