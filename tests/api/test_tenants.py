"""What an operator sets, and what it does: licences, models, caps, keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from api.main import create_app
from api.routes import tenants
from fluxfarm.settings import Settings
from fluxfarm.sources import ModelSource
from storage.database import Database
from storage.records import Tenant
from tests.api.samples import SMALL, Hand, body

DEV = "black-forest-labs/flux-2-dev"
KLEIN = "black-forest-labs/flux-2-klein-4b"


@pytest.fixture
def api(settings: Settings, api_key: str) -> Iterator[TestClient]:
    """A farm that has weights of its own besides the small ones; nobody loads them here."""
    own = tuple(ModelSource(slug, folder=Path("/weights")) for slug in (DEV, KLEIN))
    farm = create_app(settings.model_copy(update={"models": (*own, *settings.models)}))
    with TestClient(farm, headers={"Authorization": f"Bearer {api_key}"}) as client:
        yield client


def change(api: TestClient, tenant: Tenant, **changes: Any) -> dict[str, Any]:
    reply = api.patch(f"/v1/tenants/{tenant.id}", json=changes)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def test_a_tenant_is_made_changed_and_gets_its_first_key(api: TestClient) -> None:
    made = api.post("/v1/tenants", json=tenants.EXAMPLES["agency"]["value"])
    assert made.status_code == 201, made.text
    agency = made.json()
    kept = {"promptDays": 30, "referenceHours": None, "resultDays": None, "recordDays": None}
    assert (agency["weight"], agency["commercial"], agency["maxRunning"], agency["models"]) == (0.5, True, 2, None)
    assert agency["retention"] == kept
    path = f"/v1/tenants/{agency['id']}"
    changed = api.patch(path, json={"maxRunning": None, "models": ["flux-2-dev"], "retention": {"resultDays": 7}})
    assert changed.json() == agency | {"maxRunning": None, "models": [DEV], "retention": kept | {"resultDays": 7}}
    assert api.get(path).json() == changed.json()
    assert [one["name"] for one in api.get("/v1/tenants").json()["data"]] == ["acme", "agency"]
    key = api.post(f"{path}/keys", json={"name": "first", "scopes": ["admin"]}).json()
    theirs = {"Authorization": f"Bearer {key['secret']}"}
    assert [one["id"] for one in api.get("/v1/keys", headers=theirs).json()["data"]] == [key["id"]]
    assert api.get("/v1/tenants", headers=theirs).status_code == 403


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"name": "acme"}, 409, "conflict"),
        ({"name": ""}, 400, "invalid_field"),
        ({"name": "a\x07"}, 400, "invalid_field"),
        ({"weight": 0}, 400, "invalid_field"),
        ({"weight": 1e-9}, 400, "invalid_field"),
        ({"weight": "1"}, 400, "invalid_field"),
        ({"maxRunning": 0}, 400, "invalid_field"),
        ({"maxRunning": True}, 400, "invalid_field"),
        ({"rateLimit": 2**31}, 400, "invalid_field"),
        ({"models": []}, 400, "invalid_field"),
        ({"models": ["sdxl"]}, 404, "model_not_found"),
        ({"retention": {"promptDays": -1}}, 400, "invalid_field"),
        ({"retention": {"days": 1}}, 400, "unknown_field"),
        ({"retention": None}, 400, "invalid_field"),
        ({"safety": {"mode": "strict"}}, 400, "invalid_field"),
        ({"safety": {"deny": ["/(/"]}}, 400, "invalid_field"),
        ({"safety": {"deny": [""]}}, 400, "invalid_field"),
        ({"safety": {"words": []}}, 400, "unknown_field"),
        ({"budget": 1, "id": str(uuid4())}, 400, "unknown_field"),
    ],
)
def test_what_no_tenant_can_be(api: TestClient, changes: dict[str, Any], status: int, code: str) -> None:
    reply = api.post("/v1/tenants", json={"name": "new"} | changes)
    assert (reply.status_code, reply.json()["code"]) == (status, code), reply.text
    assert [one["name"] for one in api.get("/v1/tenants").json()["data"]] == ["acme"]


def test_a_tenant_gets_rules_of_its_own(api: TestClient, tenant: Tenant) -> None:
    usual = api.get(f"/v1/tenants/{tenant.id}").json()["safety"]
    assert usual == {"mode": None, "deny": [], "mayDisable": False}
    rules = {"mode": "block", "deny": ["rote nelke", "/plan\\s?b/"], "mayDisable": True}
    assert change(api, tenant, safety=rules)["safety"] == rules
    assert change(api, tenant, safety={"mode": None})["safety"] == rules | {"mode": None}
    assert change(api, tenant, weight=2)["safety"] == rules | {"mode": None}


def test_a_commercial_tenant_renders_with_commercial_weights_only(api: TestClient, tenant: Tenant, hand: Hand) -> None:
    before = api.post("/v1/jobs", json=body(model="flux-2-dev"))
    assert before.status_code == 202, before.text
    uuid = before.json()["aiRecord"]["uuid"]
    hand.fail(hand.claim(uuid))
    change(api, tenant, commercial=True)
    refused = api.post("/v1/jobs", json=body(model="flux-2-dev"))
    assert (refused.status_code, refused.json()["code"], refused.json()["param"]) == (403, "licence_forbidden", "model")
    assert KLEIN in refused.json()["detail"]
    assert api.post("/v1/jobs", json=body(model=KLEIN)).status_code == 202
    again = api.post(f"/v1/jobs/{uuid}/retry")
    assert (again.status_code, again.json()["code"]) == (403, "licence_forbidden")
    many = api.post("/v1/jobs/retry", json={}).json()
    assert many["skipped"] == [{"job": uuid, "code": "licence_forbidden"}]


def test_a_tenant_is_held_to_its_models(api: TestClient, tenant: Tenant) -> None:
    change(api, tenant, models=[SMALL])
    refused = api.post("/v1/jobs", json=body(model=KLEIN))
    assert (refused.status_code, refused.json()["code"]) == (403, "model_forbidden")
    assert refused.json()["detail"] == f"{KLEIN} is not among the models of this tenant; {SMALL} is allowed."
    assert api.post("/v1/jobs", json=body(model=SMALL)).status_code == 202
    change(api, tenant, models=["flux-2-max"])
    assert "serves none" in api.post("/v1/jobs", json=body(model=SMALL)).json()["detail"]
    change(api, tenant, models=None)
    assert api.post("/v1/jobs", json=body(model=KLEIN)).status_code == 202


def test_explain_tells_of_the_cap(api: TestClient, tenant: Tenant, hand: Hand, database: Database) -> None:
    change(api, tenant, maxRunning=1)
    first, second = (api.post("/v1/jobs", json=body()).json()["aiRecord"]["uuid"] for _ in range(2))
    with database.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO workers (id, name, pid, provider, queues, models, device, slots, state) VALUES "
                "(gen_random_uuid(), 'w', 1, 'local', '{local.flux-2-klein-small}', '{}', 'cpu', 1, 'ready')"
            )
        )
    assert api.get(f"/v1/jobs/{first}/explain").json()["reason"].startswith("The job is next")
    hand.claim(first)
    told = api.get(f"/v1/jobs/{second}/explain").json()
    assert told["reason"] == (
        "The tenant has 1 running, which is its cap; the job takes its turn when one of them is over."
    )


def test_a_key_is_rotated_without_a_gap(api: TestClient) -> None:
    made = api.post("/v1/keys", json={"name": "shop", "scopes": ["read"], "rateLimit": 500}).json()
    turned = api.post(f"/v1/keys/{made['id']}/rotate", json={"grace": 3600})
    assert turned.status_code == 201, turned.text
    fresh = turned.json()
    assert {name: fresh[name] for name in ("name", "scopes", "rateLimit", "expiresAt")} == {
        "name": "shop",
        "scopes": ["read"],
        "rateLimit": 500,
        "expiresAt": None,
    }
    for secret in (made["secret"], fresh["secret"]):
        assert api.get("/v1/jobs", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    listed = {key["id"]: key for key in api.get("/v1/keys").json()["data"]}
    assert listed[made["id"]]["replacedBy"] == fresh["id"]
    assert listed[made["id"]]["expiresAt"] is not None
    twice = api.post(f"/v1/keys/{made['id']}/rotate", json={})
    assert (twice.status_code, twice.json()["code"]) == (409, "conflict")
    assert fresh["id"] in twice.json()["detail"]
    assert api.post(f"/v1/keys/{fresh['id']}/rotate", json={"grace": 0}).status_code == 201
    assert api.get("/v1/jobs", headers={"Authorization": f"Bearer {fresh['secret']}"}).status_code == 401


def test_a_successor_lives_as_long_as_the_old_key_was_meant_to(api: TestClient, database: Database) -> None:
    made = api.post("/v1/keys", json={"name": "x", "expiresAt": "2099-01-01T00:00:00Z"}).json()
    with database.engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE api_keys SET created_at = now() - interval '9 days', expires_at = now() + interval '1 day' "
                "WHERE id = :id"
            ),
            {"id": made["id"]},
        )
    fresh = api.post(f"/v1/keys/{made['id']}/rotate", json={}).json()
    with database.engine.connect() as connection:
        days = connection.execute(
            text(
                "SELECT id::text, round(extract(epoch FROM expires_at - now()) / 86400) FROM api_keys WHERE name = 'x'"
            )
        ).all()
    assert dict(map(tuple, days)) == {made["id"]: 1, fresh["id"]: 10}
    api.delete(f"/v1/keys/{fresh['id']}")
    over = api.post(f"/v1/keys/{fresh['id']}/rotate", json={})
    assert (over.status_code, over.json()["code"]) == (409, "conflict")
