"""Every call that makes something honours ``Idempotency-Key``: a table over the description of the API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, text
from starlette.testclient import TestClient

from api.main import create_app
from fluxfarm.outbound import Outlet
from fluxfarm.settings import Settings
from storage.database import Database
from storage.records import Base, Tenant
from storage.repository import deliveries, endpoints
from tests.api import campaigns_made
from tests.api.operations import Operation, operations
from tests.api.samples import SMALL, Hand, body, picture, working

#: POST and PUT that make nothing
MAKES_NOTHING: Final = {
    "POST /v1/jobs/{uuid}/cancel": "once canceled, always canceled",
    "POST /replicate/v1/predictions/{uuid}/cancel": "the same",
    "PUT /fal/queue/{owner}/{app}/requests/{uuid}/cancel": "the same",
    "POST /v1/batches/{batch_id}/cancel": "the same",
    "POST /openai/v1/batches/{batch_id}/cancel": "the same",
    "POST /v1/campaigns/{name}/pause": "sets a wish",
    "POST /v1/campaigns/{name}/resume": "sets a wish",
    "POST /v1/campaigns/{name}/cancel": "sets a wish",
    "POST /v1/webhooks/{webhook}/enable": "sets a switch",
    "POST /v1/providers/{provider}/reset": "sets a switch",
    "POST /v1/verify": "reads a picture",
    "POST /v1/inbound/{provider}/{nonce}": "a provider's word on a job that it has; it takes no key",
}
#: calls that make one job: their replay shows it as it is now, so links and states may differ
ONE_JOB: Final = re.compile(
    r"POST (/v1/jobs|/v1/jobs/\{uuid\}/retry|(/openai)?/v1/images/.*|/api/features|/client/.*|/fal/.*|.*/predictions)"
)
UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: what is not made by a call but by what becomes of it
GROWS: Final = {
    "attempts",
    "images",
    "events",
    "idempotency_keys",
    "ledger_entries",
    "queue_clocks",
    "tenant_shares",
    "campaign_shares",
}
LINE: Final = {
    "custom_id": "one",
    "method": "POST",
    "url": "/v1/images/generations",
    "body": {"model": SMALL, "prompt": "a"},
}
#: other bodies where the whole is read before the key is looked at
OTHERS: Final = {
    "POST /v1/campaigns": campaigns_made.spec(name="winter"),
    "POST /v1/campaigns/{name}/reviews": {"files": ["a1-wide.png"], "verdict": "comment"},
}
SIZE: Final = {"width": 64, "height": 64}


def resolver(_host: str, _port: int) -> Sequence[str]:
    return ["93.184.215.14"]


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    changes = {"remote": "on", "rate_limit": 0, "longest_wait": 5}
    return create_app(settings.model_copy(update=changes), outlet=Outlet(20_000, 5.0, resolver=resolver))


@pytest.fixture
def ids(api: TestClient, database: Database, tenant: Tenant, hand: Hand) -> dict[str, str]:
    """What the paths and bodies of the calls name."""
    failed = [api.post("/v1/jobs", json=body()).json()["aiRecord"]["uuid"] for _ in range(2)]
    for uuid in failed:
        hand.fail(hand.claim(uuid))
    campaigns_made.make(api, name="drafted", draft={"steps": 2})
    campaigns_made.make(api)
    for name in ("drafted", "spring"):
        campaigns_made.render(api, hand, name, but={"b2-wide.png"})
    webhook = api.post("/v1/webhooks", json={"url": "https://shop.example.com/hook"}).json()["id"]
    with database.transaction() as session:
        delivery = endpoints.send_test(session, tenant.id, webhook).id
    with database.transaction() as session:
        message = deliveries.claim(session, delivery, 30)
        assert message is not None
        deliveries.give_up(session, message, deliveries.Answer(ms=12, status=500, error="http_500"))
    lines = {"file": ("calls.jsonl", json.dumps(LINE).encode())}
    return {
        "uuid": failed[0],
        "webhook": webhook,
        "delivery": delivery,
        "name": "spring",
        "draft": campaigns_made.files(api, "drafted")[0]["name"],
        "id": api.post("/v1/keys", json={"name": "old"}).json()["id"],
        "tenant": api.post("/v1/tenants", json={"name": "agency"}).json()["id"],
        "provider": "fal",
        "lines": api.post("/v1/files", files=lines, data={"purpose": "batch"}).json()["id"],
        "account": "a",
        "model": SMALL,
        "endpoint": SMALL,
        "owner": SMALL.partition("/")[0],
    }


def calls(ids: dict[str, str]) -> dict[str, dict[str, Any]]:
    """A call of each that makes something, by its operation; ``name`` and such in the path come from ``ids``."""
    file = {"files": {"file": picture()}}
    lines = {"files": {"file": ("calls.jsonl", json.dumps(LINE).encode())}, "data": {"purpose": "batch"}}
    batch = {"input_file_id": ids["lines"], "endpoint": "/v1/images/generations", "completion_window": "24h"}
    drawn = {"json": {"model": SMALL, "prompt": "a fox", "size": "64x64"}}
    edited = {"data": {"model": SMALL, "prompt": "a fox", "size": "64x64"}, "files": {"image": picture()}}
    found: dict[str, dict[str, Any]] = {
        "POST /v1/jobs": {"json": body()},
        "POST /v1/jobs/{uuid}/retry": {},
        "POST /v1/jobs/retry": {"json": {"limit": 1}},
        "POST /v1/references": file,
        "POST /v1/webhooks": {"json": {"url": "https://other.example.com/hook"}},
        "POST /v1/webhooks/{webhook}/rotate": {},
        "POST /v1/webhooks/{webhook}/test": {},
        "POST /v1/webhooks/deliveries/{delivery}/replay": {},
        "POST /v1/keys": {"json": {"name": "new"}},
        "POST /v1/keys/{id}/rotate": {"json": {"grace": 60}},
        "POST /v1/tenants": {"json": {"name": "studio"}},
        "POST /v1/tenants/{tenant}/keys": {"json": {"name": "first", "scopes": ["admin"]}},
        "PUT /v1/providers/{provider}/key": {"json": {"key": "fal-key-of-the-tenant"}},
        "POST /v1/campaigns": {"json": campaigns_made.spec(name="autumn")},
        "POST /v1/campaigns/{name}/retry": {},
        "POST /v1/campaigns/{name}/reviews": {"json": {"files": ["a1-wide.png"], "verdict": "regenerate"}},
        "POST /v1/campaigns/{name}/masters": {"json": {"picks": [ids["draft"]]}},
        "POST /v1/campaigns/{name}/shares": {"json": {"expiresAt": "2099-01-01T00:00:00Z"}},
        "POST /api/features": {
            "json": {"type": "IMAGE_GENERATOR", "model": SMALL, "promptObject": {"prompt": "a", "aspect_ratio": "1:1"}}
        },
        "POST /api/assets": {"files": {"asset": picture(80)}},
        "POST /client/v4/accounts/{account}/ai/run/{model}": {"json": {"prompt": "a fox", **SIZE}},
        "POST /fal/queue/{endpoint}": {"json": {"prompt": "a fox", "image_size": SIZE}},
        "POST /fal/run/{endpoint}": {"json": {"prompt": "a fox", "image_size": SIZE}},
        "POST /replicate/v1/predictions": {"json": {"version": SMALL, "input": {"prompt": "a fox"}}},
        "POST /replicate/v1/models/{owner}/{name}/predictions": {"json": {"input": {"prompt": "a fox"}}},
        "POST /replicate/v1/files": {"files": {"content": picture(112)}},
    }
    for start in ("", "/openai"):
        found[f"POST {start}/v1/images/generations"] = drawn
        found[f"POST {start}/v1/images/edits"] = edited
        found[f"POST {start}/v1/files"] = lines
        found[f"POST {start}/v1/batches"] = {"json": batch}
    return found


def path(operation: Operation, ids: dict[str, str]) -> str:
    def value(name: str) -> str:
        if "/replicate/v1/models/" in operation.template and name == "name":
            return SMALL.partition("/")[2]
        return "drafted" if name == "name" and operation.template.endswith("masters") else ids[name]

    return operation.path(value)


@pytest.fixture
def worker(database: Database, hand: Hand, ids: dict[str, str]) -> Iterator[None]:
    """Some calls wait for their picture; it starts when the failed jobs are there."""
    assert ids
    with working(database, hand):
        yield


def counted(database: Database) -> dict[str, int]:
    """How much is stored, by table."""
    tables = [table for table in Base.metadata.sorted_tables if table.name not in GROWS]
    with database.transaction() as session:
        return {table.name: session.scalar(select(func.count()).select_from(table)) or 0 for table in tables}


def identity(name: str, reply: Any) -> Any:
    if not ONE_JOB.fullmatch(name):
        return reply.content, reply.headers.get("location")
    found = UUID.search(str(reply.headers) + reply.text)
    return found and found[0]


def creating(app: FastAPI) -> list[Operation]:
    return [one for one in operations(app) if one.method in ("POST", "PUT") and one.name not in MAKES_NOTHING]


def test_every_creating_call_is_in_the_table_and_tells_of_the_header(app: FastAPI, ids: dict[str, str]) -> None:
    found = creating(app)
    assert {one.name for one in found} == calls(ids).keys()
    assert {one.name for one in operations(app)} > MAKES_NOTHING.keys()
    for one in found:
        assert "Idempotency-Key" in {parameter["name"] for parameter in one.described["parameters"]}, one.name
        assert {400, 409, 422} <= one.statuses, one.name


@pytest.mark.usefixtures("worker")
def test_a_replay_gives_the_same_answer_and_makes_nothing_twice(
    app: FastAPI, api: TestClient, database: Database, ids: dict[str, str]
) -> None:
    table, wrong = calls(ids), []
    taken = api.post("/v1/references", files={"file": picture(200)}, headers={"Idempotency-Key": "taken"})
    assert taken.status_code == 201
    for number, operation in enumerate(creating(app)):
        asked, where = table[operation.name], path(operation, ids)

        def post(key: str, **more: Any) -> Any:
            return api.request(operation.method, where, headers={"Idempotency-Key": key}, **{**asked, **more})  # noqa: B023

        before = counted(database)
        refused = [post(bad).status_code for bad in ("", "x" * 10_240)]
        bad = 422 if where.startswith("/replicate") else 400  # as Replicate words it
        if refused != [bad, bad] or counted(database) != before:
            wrong.append(f"{operation.name}: a bad key: {refused}")
        first = post(f"key-{number}")
        made = counted(database)
        again = [post(f"key-{number}") for _ in range(2)]
        if first.status_code // 100 != 2 or "idempotency-replayed" in first.headers:
            wrong.append(f"{operation.name}: {first.status_code} {first.text[:200]}")
        for reply in again:
            same = identity(operation.name, reply) == identity(operation.name, first)
            marked = reply.headers.get("idempotency-replayed") == "true"
            if not (reply.status_code == first.status_code and same and marked):
                wrong.append(f"{operation.name}: replay: {reply.status_code} {marked} {reply.text[:200]}")
        others = [post("taken")]
        if "json" in asked:
            changed = OTHERS.get(operation.name, {**asked["json"], "nobody_knows_this": 1})
            others.append(post(f"key-{number}", json=changed))
        told = {reply.status_code for reply in others}
        if told != {422} or counted(database) != made:
            wrong.append(f"{operation.name}: another call with the key: {told}, {[one.text[:200] for one in others]}")
        with database.engine.begin() as connection:
            connection.execute(
                text("UPDATE idempotency_keys SET job_uuid = NULL, status_code = NULL WHERE key = :key"),
                {"key": f"key-{number}"},
            )
        flying = post(f"key-{number}")
        if (flying.status_code, flying.headers.get("retry-after")) != (409, "2"):
            wrong.append(f"{operation.name}: in flight: {flying.status_code} {flying.text[:200]}")
    assert not wrong, "\n".join(wrong)


def keyed(key: str = "k", **more: str) -> dict[str, Any]:
    return {"headers": {"Idempotency-Key": key, **more}}


def test_a_secret_is_kept_sealed_and_told_to_its_own_tenant_only(
    api: TestClient, database: Database, other_key: str
) -> None:
    made = api.post("/v1/keys", json={"name": "new"}, **keyed()).json()
    assert api.post("/v1/keys", json={"name": "new"}, **keyed()).json()["secret"] == made["secret"]
    with database.engine.connect() as connection:
        row = connection.execute(text("SELECT * FROM idempotency_keys")).mappings().one()
    assert (row["status_code"], row["job_uuid"]) == (201, None)
    assert not any(made["secret"] in str(value) or made["id"] in str(value) for value in row.values())
    theirs = api.post("/v1/keys", json={"name": "new"}, **keyed(Authorization=f"Bearer {other_key}"))
    assert (theirs.status_code, "idempotency-replayed" in theirs.headers) == (201, False)
    reader = api.post("/v1/keys", json={"name": "reader", "scopes": ["read"]}).json()["secret"]
    refused = api.post("/v1/keys", json={"name": "new"}, **keyed(Authorization=f"Bearer {reader}"))
    assert refused.status_code == 403  # of the same tenant, and may make no key


def test_what_an_operator_made_is_not_told_to_an_admin_of_the_same_tenant(api: TestClient) -> None:
    def key(*scopes: str) -> dict[str, str]:
        made = api.post("/v1/keys", json={"name": "k", "scopes": scopes}).json()["secret"]
        return {"Authorization": f"Bearer {made}"}

    asked = {"name": "chief", "scopes": ["operator", "admin"]}
    admin, operator, twin = key("admin"), key("admin", "operator"), key("operator", "admin")
    first = api.post("/v1/keys", json=asked, **keyed(**operator))
    assert first.status_code == 201
    refused = api.post("/v1/keys", json=asked, **keyed(**admin))
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert first.json()["secret"] not in refused.text
    assert api.post(f"/v1/keys/{first.json()['id']}/rotate", json={}, **keyed("r", **operator)).status_code == 201
    assert api.post(f"/v1/keys/{first.json()['id']}/rotate", json={}, **keyed("r", **admin)).status_code == 422
    assert api.post("/v1/keys", json=asked, **keyed(**twin)).json() == first.json()


def test_twenty_at_once_make_one_key(api: TestClient) -> None:
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda _: api.post("/v1/keys", json={"name": "new"}, **keyed()), range(20)))
    assert {reply.status_code for reply in replies} == {201}, {reply.text for reply in replies}
    assert len({reply.json()["secret"] for reply in replies}) == 1
    assert [one["name"] for one in api.get("/v1/keys").json()["data"]].count("new") == 1


def test_what_is_refused_keeps_no_key(api: TestClient, database: Database) -> None:
    twin = {"url": "https://shop.example.com/hook"}
    assert api.post("/v1/webhooks", json={"url": "https://10.0.0.1/hook"}, **keyed()).status_code == 400
    assert api.post("/v1/webhooks", json=twin, **keyed()).status_code == 201
    assert api.post("/v1/webhooks", json=twin, **keyed("other")).status_code == 409
    with database.engine.connect() as connection:
        assert connection.scalars(text("SELECT key FROM idempotency_keys")).all() == ["k"]


def test_a_retry_of_openais_client_makes_no_second_batch(api: TestClient, ids: dict[str, str]) -> None:
    asked = {"input_file_id": ids["lines"], "endpoint": "/v1/images/generations", "completion_window": "24h"}

    def tried(number: int) -> str:
        reply = api.post("/v1/batches", json=asked, headers={"x-stainless-retry-count": str(number)})
        return str(reply.json()["id"])

    first = tried(0)
    assert (tried(1), tried(2)) == (first, first)
    second = tried(0)
    assert second != first
    assert tried(1) == second
