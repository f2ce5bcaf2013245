"""Each call needs one scope, the one that its description names, and no other will do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from fluxfarm.scopes import Scope
from storage.database import Database
from storage.records import Tenant
from storage.repository import tenants
from tests.api.operations import operations

# probes, links that are a permission, what is the same for everybody, and what providers sign
OPEN = {
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
    "GET /objects/{key}",
    "GET /schemas/campaign.json",
    "GET /.well-known/jwks.json",
    "GET /replicate/delivery/{key}",
    "GET /shares/{token}",
    "GET /shares/{token}/files/{n}",
    "GET /shares/{token}/export.zip",
    "POST /v1/inbound/{provider}/{nonce}",
}


@pytest.fixture
def anyone(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, follow_redirects=False) as client:
        yield client


def test_every_call_needs_the_scope_that_it_names(
    app: FastAPI, anyone: TestClient, database: Database, tenant: Tenant
) -> None:
    with database.transaction() as session:
        only = {scope: tenants.create_key(session, tenant.id, scope, [scope])[1] for scope in Scope}
        others = {
            scope: tenants.create_key(session, tenant.id, f"not {scope}", set(Scope) - {scope})[1] for scope in Scope
        }
    for operation in operations(app):
        if operation.name in OPEN:
            assert operation.scope is None
            continue
        assert operation.scope is not None, operation.name
        scope = Scope(operation.scope)
        refused = operation.call(anyone, headers={"API-KEY": others[scope]})
        assert refused.status_code == 403, (operation.name, refused.text)
        assert f"'{scope}'" in refused.text, operation.name
        passed = operation.call(anyone, headers={"API-KEY": only[scope]})
        assert passed.status_code in operation.statuses - {401, 403, 500, 503}, (operation.name, passed.text)
        stranger = operation.call(anyone)
        assert stranger.status_code == 401, operation.name


def test_an_admin_does_not_become_an_operator(anyone: TestClient, database: Database, tenant: Tenant) -> None:
    with database.transaction() as session:
        admin = {"API-KEY": tenants.create_key(session, tenant.id, "admin", [Scope.ADMIN])[1]}
        chief, _ = tenants.create_key(session, tenant.id, "chief", [Scope.OPERATOR])
        operator = {"API-KEY": tenants.create_key(session, tenant.id, "both", [Scope.ADMIN, Scope.OPERATOR])[1]}
    wanted = {"name": "mine", "scopes": ["operator"]}
    for refused in (
        anyone.post("/v1/keys", json=wanted, headers=admin),
        anyone.delete(f"/v1/keys/{chief.id}", headers=admin),
    ):
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert anyone.post("/v1/keys", json=wanted, headers=operator).status_code == 201
    assert anyone.delete(f"/v1/keys/{chief.id}", headers=operator).status_code == 204
