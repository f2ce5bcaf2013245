from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from storage.database import Database
from storage.keys import make_key
from storage.records import ApiKey, Tenant
from storage.repository import tenants
from tests.api.samples import Hand, body, rows


@pytest.fixture
def anyone(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def test_a_key_in_either_header(anyone: TestClient, api_key: str) -> None:
    assert anyone.get("/v1/jobs", headers={"Authorization": f"Bearer {api_key}"}).status_code == 200
    assert anyone.get("/v1/jobs", headers={"Authorization": f"bearer {api_key}"}).status_code == 200
    assert anyone.get("/v1/jobs", headers={"API-KEY": api_key}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer ff_live_nonsense"},
        {"Authorization": "Basic Zm9vOmJhcg=="},
        {"API-KEY": ""},
        {"API-KEY": make_key()},
        {b"API-KEY": "ff_live_\xfc".encode("latin-1")},
    ],
    ids=range(7),
)
def test_no_key_or_a_wrong_one(anyone: TestClient, database: Database, headers: dict[str, str], api_key: str) -> None:
    assert api_key
    for reply in (
        anyone.post("/v1/jobs", json=body(), headers=headers),
        anyone.post("/v1/jobs", content=b"{", headers={**headers, "Content-Type": "application/json"}),
        anyone.post("/v1/references", headers=headers),
        anyone.get(f"/v1/jobs/{uuid4()}/events", headers=headers),
        anyone.get("/v1/models", headers=headers),
    ):
        assert reply.status_code == 401, reply.text
        assert reply.json()["code"] == "invalid_api_key"
        assert reply.headers["www-authenticate"].startswith("Bearer")
    assert set(rows(database).values()) == {0}


def test_a_revoked_key_is_over_at_once(api: TestClient, key_and_secret: tuple[ApiKey, str]) -> None:
    assert api.get("/v1/jobs").status_code == 200
    assert api.delete(f"/v1/keys/{key_and_secret[0].id}").status_code == 204
    for reply in (api.get("/v1/jobs"), api.post("/v1/jobs", json=body()), api.get("/v1/keys")):
        assert (reply.status_code, reply.json()["code"]) == (401, "invalid_api_key")


def test_an_expired_key(anyone: TestClient, database: Database, tenant: Tenant) -> None:
    with database.transaction() as session:
        past = datetime.now(UTC) - timedelta(seconds=1)
        secret = tenants.create_key(session, tenant.id, "old", ["render", "read"], past)[1]
    assert anyone.get("/v1/jobs", headers={"API-KEY": secret}).status_code == 401


def test_a_key_without_the_scope(anyone: TestClient, database: Database, tenant: Tenant) -> None:
    with database.transaction() as session:
        worker = tenants.create_key(session, tenant.id, "jobs only", ["render", "read"])[1]
        clerk = tenants.create_key(session, tenant.id, "admin only", ["admin"])[1]
    for reply in (
        anyone.get("/v1/keys", headers={"API-KEY": worker}),
        anyone.post("/v1/keys", json={"name": "x"}, headers={"API-KEY": worker}),
        anyone.delete(f"/v1/keys/{uuid4()}", headers={"API-KEY": worker}),
        anyone.post("/v1/jobs", json=body(), headers={"API-KEY": clerk}),
    ):
        assert (reply.status_code, reply.json()["code"]) == (403, "forbidden")


def test_a_key_is_made_shown_once_and_works(api: TestClient, anyone: TestClient) -> None:
    made = api.post(
        "/v1/keys", json={"name": "shop", "scopes": ["render", "read"], "expiresAt": "2099-01-01T00:00:00+01:00"}
    )
    assert made.status_code == 201, made.text
    secret = made.json()["secret"]
    assert made.json()["expiresAt"] == "2098-12-31T23:00:00.000Z"
    assert anyone.get("/v1/jobs", headers={"API-KEY": secret}).status_code == 200
    listed = api.get("/v1/keys")
    assert secret not in listed.text
    by_name = {key["name"]: key for key in listed.json()["data"]}
    assert by_name["shop"]["prefix"] == secret[:12]
    assert by_name["shop"]["lastUsedAt"] is not None


def test_another_tenants_things_do_not_exist(
    api: TestClient, anyone: TestClient, other_key: str, hand: Hand, key_and_secret: tuple[ApiKey, str]
) -> None:
    uuid = api.post("/v1/jobs", json=body()).json()["aiRecord"]["uuid"]
    hand.finish(hand.claim(uuid))
    theirs = {"API-KEY": other_key}
    for method, path in (
        ("GET", f"/v1/jobs/{uuid}"),
        ("GET", f"/v1/jobs/{uuid}?wait=1"),
        ("POST", f"/v1/jobs/{uuid}/cancel"),
        ("DELETE", f"/v1/jobs/{uuid}"),
        ("GET", f"/v1/jobs/{uuid}/events"),
        ("GET", f"/v1/jobs/{uuid}/explain"),
        ("GET", f"/v1/assets/{uuid}/0"),
        ("DELETE", f"/v1/keys/{key_and_secret[0].id}"),
    ):
        reply = anyone.request(method, path, headers=theirs, follow_redirects=False)
        assert (reply.status_code, reply.json()["code"]) == (404, "not_found"), path
    assert anyone.get("/v1/jobs", headers=theirs).json()["data"] == []
    assert api.get(f"/v1/jobs/{uuid}").json()["aiRecord"]["status"] == "SUCCESS"


def test_request_ids_and_safe_headers(anyone: TestClient) -> None:
    own = anyone.get("/healthz", headers={"x-request-id": "abc-1.2_3"})
    assert own.headers["x-request-id"] == "abc-1.2_3"
    for bad in ("a b", "x" * 65, "<script>"):
        assert anyone.get("/healthz", headers={"x-request-id": bad}).headers["x-request-id"] != bad
    assert own.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in anyone.get("/healthz", headers={"Origin": "https://evil"}).headers
