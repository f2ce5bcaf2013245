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
    "1e308": b"1e308",
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
NOTHING = ("null", "empty object")  #: of them, what a field may be
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


def properties(app: FastAPI, schema: dict[str, Any]) -> dict[str, Any]:
    """Of an object, or of the one among several kinds that is an object."""
    while "$ref" in schema:
        schema = app.openapi()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    kinds = [properties(app, one) for one in schema.get("anyOf", ())]
    own: dict[str, Any] = schema.get("properties", {})
    return next(filter(None, kinds), {}) | own


def fields(app: FastAPI, operation: Operation) -> dict[str, list[str]]:
    """The names at the top of its body, and below each of them that is an object; the top is named ""."""
    top = properties(app, operation.bodies["application/json"]["schema"]) or {"prompt": {}}
    below = {name: list(properties(app, schema)) for name, schema in top.items()}
    return {"": list(top)} | {name: names for name, names in below.items() if names}


@pytest.mark.timeout(240)
def test_raw_bodies_on_every_route_that_takes_json(app: FastAPI, api: TestClient) -> None:
    app.state.farm.rates._usual = None
    taking = [operation for operation in operations(app) if "application/json" in operation.bodies]
    assert len(taking) > 10
    wrong = []
    for operation in taking:
        raw = dict(BODIES)
        for place, names in fields(app, operation).items():
            for name, value in VALUES.items():
                content = b"{%s}" % b", ".join(json.dumps(field).encode() + b": " + value for field in names)
                raw[f"{place} {name}"] = b"{%s: %s}" % (json.dumps(place).encode(), content) if place else content
        for name, content in raw.items():
            reply = operation.call(api, content=content, headers=JSON)
            allowed = {status for status in operation.statuses if status < 500}
            if reply.status_code not in allowed or (reply.status_code < 400 and not name.endswith(NOTHING)):
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
            ("/v1/references/", "reference"): reference,
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


def test_forms_whose_charset_makes_half_a_surrogate_pair(app: FastAPI, api: TestClient) -> None:
    app.state.farm.rates._usual = None
    half, wrong, asked = "+2AA-", [], 0
    for operation in operations(app):
        if "multipart/form-data" not in operation.bodies:
            continue
        for part in (
            f'name="{half}"',
            'name="prompt"',
            'name="user"',
            'name="size"',
            f'name="file"; filename="{half}"',
        ):
            texts = [
                (part, half.encode()),
                ('name="prompt"', b"a fox"),
                ('name="model"', SMALL.encode()),
                ('name="purpose"', b"batch"),
            ]
            image = "input_image_0" if "{model}" in operation.template else "image"
            content = b"".join(
                b"--x\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (name.encode(), value)
                for name, value in (*texts, (f'name="{image}"; filename="a.png"', picture()))
            )
            headers = {"Content-Type": "multipart/form-data; boundary=x; charset=utf-7"}
            own = operation.path(lambda name: SMALL if name == "model" else "a")
            reply = operation.call(api, own, content=content + b"--x--\r\n", headers=headers)
            asked += 1
            if reply.status_code not in (400, 422):
                wrong.append(f"{operation.name}: {part}: {reply.status_code} {reply.text[:200]}")
    assert asked > 20
    assert not wrong, "\n".join(wrong)


def test_nul_in_a_path_or_a_query_is_no_fault_of_the_farm(
    app: FastAPI, api: TestClient, belongings: Belongings
) -> None:
    app.state.farm.rates._usual = None
    wrong, asked = [], 0
    for operation in operations(app):
        own = operation.path(lambda name: belongings.of(operation, name) or "black-forest-labs")  # noqa: B023
        paths = {operation.path_but(name, "a%00b"): (404, 404) for name in operation.parameters}
        paths |= {f"{own}?{name}=a%00b": (200, 422) for name in operation.named("query")}
        for path, (low, high) in paths.items():
            status = operation.call(api, path).status_code
            asked += 1
            if not low <= status <= high:
                wrong.append(f"{operation.method} {path}: {status}")
    assert asked > 100
    assert not wrong, "\n".join(wrong)
