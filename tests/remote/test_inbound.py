"""Webhooks of providers: verified, taken once, believed in nothing but that there is something to ask for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from uuid import UUID, uuid4

import httpx
import pytest
from pydantic import SecretStr

from api.jwks import Jwks
from fluxfarm.settings import Settings
from storage.database import Database
from tests.money import assert_balanced
from tests.remote.office import Office, listening
from tests.stubs.fal import FalStub
from tests.stubs.hooks import REPLICATE_SECRET, fal_jwks
from tests.stubs.replicate import ReplicateStub


@pytest.fixture
def office(settings: Settings, database: Database, api_key: str) -> Iterator[Office]:
    """The API behind a real server, which the providers can reach."""
    changes = {"replicate_webhook_secret": SecretStr(REPLICATE_SECRET), "remote_patience": 5.0}
    with listening(settings, database, api_key, FalStub(), ReplicateStub(), **changes) as (made, farm):
        farm.jwks = Jwks(lambda: json.dumps(fal_jwks()).encode())
        yield made
    assert_balanced(database)


@pytest.mark.parametrize("provider", ["fal", "replicate"])
def test_a_lost_answer_is_found_again_by_the_webhook(office: Office, provider: str) -> None:
    record = office.render("a fox [reset]", provider=provider)
    assert record["status"] == "SUCCESS", record
    assert office.stubs[provider].accepted == 1
    assert office.stubs[provider].told == [204]


@pytest.mark.parametrize(("fault", "told"), [("hook-forged", [403]), ("hook-old", [403])])
def test_a_webhook_that_is_not_the_providers_changes_nothing(office: Office, fault: str, told: list[int]) -> None:
    record = office.render(f"a fox [reset] [{fault}]", provider="fal")
    assert record["error"]["code"] == "outcome_unknown"
    assert office.stubs["fal"].told == told
    assert office.stubs["fal"].accepted == 1


def test_a_webhook_wakes_the_poll_and_a_replay_does_nothing(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.providers.flight.FIRST_POLL", 30.0)
    office.stubs["fal"].latency = 0.5
    started = time.monotonic()
    record = office.render("a fox [hook-twice]", provider="fal")
    assert record["status"] == "SUCCESS"
    assert time.monotonic() - started < 15
    assert office.stubs["fal"].told == [204, 204]


def test_strangers_are_told_nothing(office: Office) -> None:
    url = f"{office.settings.base_url}/v1/inbound"
    for path in (f"fal/{uuid4()}", f"nobody/{uuid4()}", "fal/x", f"bfl/{UUID(int=1)}"):
        reply = httpx.post(f"{url}/{path}", content=b"{}", trust_env=False)
        assert reply.status_code in {403, 404}, path
