"""Fields of a provider's own: they reach it, another one ignores them, and where nobody has them they are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fluxfarm.settings import Settings
from storage.database import Database
from tests.remote.office import DEV, Office, opened, order
from tests.stubs.fal import FalStub
from tests.stubs.replicate import ReplicateStub

FIELD = "enable_prompt_expansion"


@pytest.fixture
def office(settings: Settings, database: Database, api_key: str) -> Iterator[Office]:
    with opened(settings, database, api_key, FalStub(), ReplicateStub()) as made:
        yield made


def test_a_field_goes_to_the_provider_that_has_it_and_is_ignored_by_the_next_one(office: Office) -> None:
    offers = office.api.get(f"/v1/models/{DEV}").json()["providers"]
    assert [one["provider"] for one in offers if FIELD in one["extras"]] == ["fal"]
    office.stubs["fal"].plan.extend(["failed-internal"])
    record = office.render(prompt_object={FIELD: True})
    assert record["aiRecordDetail"]["promptObject"][FIELD] is True
    first, second = record["attempts"]
    assert (first["provider"], first["ignored"]) == ("fal", [])
    assert office.stubs["fal"].last.body[FIELD] is True
    assert (second["provider"], second["ignored"]) == ("replicate", [FIELD])
    assert second["parameters"][FIELD] == {"behaviour": "ignored", "target": ""}
    assert FIELD not in office.stubs["replicate"].last.body


@pytest.mark.parametrize(
    ("asked", "changes", "code"),
    [
        ({FIELD: True}, {"provider": "replicate"}, "unknown_field"),
        ({FIELD: True}, {"provider": "local"}, "unknown_field"),
        ({"safety_tolerance": "2"}, {}, "unknown_field"),  # fal has it, but not for this model
        ({"enable_promt_expansion": True}, {}, "unknown_field"),
        ({FIELD: [1]}, {}, "invalid_field"),
        ({FIELD: "x\u0007"}, {}, "invalid_field"),
        ({FIELD: 1e300}, {}, "invalid_field"),
    ],
)
def test_a_field_that_nobody_takes_is_refused(
    office: Office, asked: dict[str, Any], changes: dict[str, Any], code: str
) -> None:
    reply = office.api.post("/v1/jobs", json=order(prompt_object=asked, **changes))
    assert (reply.status_code, reply.json()["code"]) == (400, code), reply.text
    assert reply.json()["param"] == f"promptObject.{next(iter(asked))}"
