"""Tables over the whole description of the API: raw bodies, and the ids of another tenant."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.routes.campaigns import EXAMPLES
from storage.database import Database
from storage.records import ApiKey, Tenant
from storage.repository import endpoints
from tests.api.operations import Operation, operations
from tests.api.samples import SMALL, Hand, body, picture

JSON = {"Content-Type": "application/json"}
#: values in the place of every field that a body has
VALUES = {
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "1e999": b"1e999",
    "1e400": b"1e400",
    "huge whole number": b"9" * 5_000,
    "4,000-digit seed": b"7" * 4_000,
    "900 digits": b"9" * 900,
    "above 64 bits": b"18446744073709551616",
    "true as int": b"true",
    "text as int": b'"7"',
    "half a surrogate pair": b'"\\ud800"',
    "NUL": b'"a\\u0000b"',
    "bidi controls": b'"\\u202ea\\u2066b"',
    "bad UTF-8": b'"\xc3\x28"',
    "null": b"null",
    "empty list": b"[]",
    "empty object": b"{}",
    "100k depth": b"[" * 100_000 + b"]" * 100_000,
}
BODIES = {
    "nothing": b"",
    "no object": b"[1]",
    "a number": b"7",
    "half": b"{",
    "an unknown field": b'{"nobody_knows_this": 1}',
    "a name twice": b'{"a": 1, "a": 2}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a BOM": b"\xef\xbb\xbf{}",
    "100k depth, unclosed": b'{"a":' * 100_000,
    "60 MB": b'{"prompt": "' + b"x" * 60_000_000 + b'"}',
}


def fields(app: FastAPI, operation: Operation) -> list[str]:
    """The names at the top of its body."""
    schema = operation.bodies["application/json"]["schema"]
    while "$ref" in schema:
        schema = app.openapi()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return list(schema.get("properties", {"prompt": {}}))


@pytest.mark.timeout(240)
def test_raw_bodies_on_every_route_that_takes_json(app: FastAPI, api: TestClient) -> None:
    app.state.farm.rates._usual = None
    taking = [operation for operation in operations(app) if "application/json" in operation.bodies]
    assert len(taking) > 10
    wrong = []
    for operation in taking:
        raw = dict(BODIES)
        for name, value in VALUES.items():
            members = (json.dumps(field).encode() + b": " + value for field in fields(app, operation))
            raw[name] = b"{" + b", ".join(members) + b"}"
        for name, content in raw.items():
            reply = operation.call(api, content=content, headers=JSON)
            allowed = {status for status in operation.statuses if status < 500}
            if reply.status_code not in allowed or (reply.status_code < 400 and name not in ("null", "empty object")):
                wrong.append(f"{operation.name}: {name}: {reply.status_code} {reply.text[:200]}")
    assert not wrong, "\n".join(wrong)


#: names in paths that are no ids of a tenant: models, places of a dialect, links that are a permission, the operator's
NOBODYS = {
    ("/objects/", "key"),
    ("/shares/", "token"),
    ("/shares/", "n"),
    ("/v1/models/", "id"),
    ("/openai/v1/models/", "id"),
    ("/v1/tenants/", "tenant"),
    ("/v1/providers/", "provider"),
    ("/v1/inbound/", "provider"),
    ("/v1/inbound/", "nonce"),
    ("/client/v4/", "account"),
    ("/client/v4/", "model"),
    ("/fal/", "endpoint"),
    ("/replicate/delivery/", "key"),
    ("/replicate/v1/models/", "owner"),
    ("/replicate/v1/models/", "name"),
}
#: bodies that are right, for calls that read them before they look for the id
RIGHT = {
    "PATCH /v1/campaigns/{name}": {"budget": 1},
    "POST /v1/campaigns/{name}/reviews": {"files": ["a.png"], "verdict": "approve"},
    "POST /v1/campaigns/{name}/shares": {"expiresAt": "2099-01-01T00:00:00Z"},
}


@dataclass(frozen=True)
class Belongings:
    """The ids of what a tenant has, by the beginning of the path and the name in it."""

    ids: dict[tuple[str, str], str]

    def of(self, operation: Operation, name: str) -> str | None:
        found = (
            value
            for (start, known), value in self.ids.items()
            if name == known and operation.template.startswith(start)
        )
        return next(found, None)


@pytest.fixture
def belongings(
    api: TestClient, database: Database, tenant: Tenant, key_and_secret: tuple[ApiKey, str], hand: Hand
) -> Belongings:
    uuid = api.post("/v1/jobs", json=body()).json()["aiRecord"]["uuid"]
    hand.finish(hand.claim(uuid))
    with database.transaction() as session:
        webhook = endpoints.create(session, tenant.id, "https://example.com/hook", "sealed").id
        delivery = endpoints.send_test(session, tenant.id, webhook).id
    reference = api.post("/v1/references", files={"file": picture()}).json()["id"]
    campaign = api.post("/v1/campaigns", json=EXAMPLES["small"]["value"])
    assert campaign.status_code == 201, campaign.text
    share = api.post("/v1/campaigns/spring/shares", json=RIGHT["POST /v1/campaigns/{name}/shares"])
    assert share.status_code == 201, share.text
    line = {
        "custom_id": "one",
        "method": "POST",
        "url": "/v1/images/generations",
        "body": {"model": SMALL, "prompt": "a"},
    }
    lines = {"file": ("calls.jsonl", json.dumps(line).encode())}
    calls = api.post("/v1/files", files=lines, data={"purpose": "batch"}).json()["id"]
    asked = {"input_file_id": calls, "endpoint": "/v1/images/generations", "completion_window": "24h"}
    batch = api.post("/v1/batches", json=asked).json()["id"]
    return Belongings(
        {
            ("/v1/files/", "file_id"): calls,
            ("/openai/v1/files/", "file_id"): calls,
            ("/v1/batches/", "batch_id"): batch,
            ("/openai/v1/batches/", "batch_id"): batch,
            ("/v1/jobs/", "uuid"): uuid,
            ("/v1/assets/", "uuid"): uuid,
            ("/v1/assets/", "n"): "0",
            ("/api/features/", "uuid"): uuid,
            ("/fal/", "uuid"): uuid,
            ("/fal/", "owner"): SMALL.partition("/")[0],
            ("/fal/", "app"): SMALL.partition("/")[2],
            ("/replicate/", "uuid"): uuid,
            ("/replicate/v1/files/", "file"): reference,
            ("/v1/webhooks/", "webhook"): webhook,
            ("/v1/webhooks/deliveries/", "delivery"): delivery,
            ("/v1/campaigns/", "name"): "spring",
            ("/v1/campaigns/", "id"): str(share.json()["id"]),
            ("/v1/keys/", "id"): str(key_and_secret[0].id),
        }
    )


def test_every_foreign_id_is_unknown(app: FastAPI, api: TestClient, other_key: str, belongings: Belongings) -> None:
    theirs = {"Authorization": f"Bearer {other_key}"}
    wrong = []
    for operation in operations(app):
        named = [
            name
            for name in operation.parameters
            if not any(operation.template.startswith(start) and name == known for start, known in NOBODYS)
        ]
        if not named:
            continue
        assert all(belongings.of(operation, name) for name in named), f"no id of another tenant for {operation.name}"
        path = operation.path(lambda name: belongings.of(operation, name) or "black-forest-labs")  # noqa: B023
        more: dict[str, Any] = {"json": RIGHT[operation.name]} if operation.name in RIGHT else {}
        foreign = operation.call(api, path, headers=theirs, **more)
        if foreign.status_code != 404:
            wrong.append(f"{operation.name}: {foreign.status_code} {foreign.text[:200]}")
        if operation.method == "GET" and not operation.template.endswith(("events", "stream")):
            own = operation.call(api, path, **more)
            if own.status_code == 404:
                wrong.append(f"{operation.name}: its own is unknown too: {own.text[:200]}")
    assert not wrong, "\n".join(wrong)
