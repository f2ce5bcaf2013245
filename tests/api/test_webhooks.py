from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, update
from starlette.testclient import TestClient

from api.main import create_app
from api.routes import webhooks
from fluxfarm.outbound import Outlet
from fluxfarm.settings import Settings
from storage.database import Database
from storage.queue import WEBHOOK_QUEUE, Queue
from storage.records import Job, Tenant
from storage.repository import deliveries, tenants
from storage.webhook_records import Delivery, Endpoint
from tests.api.samples import Hand, body, picture

URL = "https://shop.example.com/hooks/fluxfarm"
INSIDE = "https://inside.example.com/"


def resolver(host: str, _port: int) -> Sequence[str]:
    if host == "inside.example.com":
        return ["10.0.0.1"]
    return ["93.184.215.14"]


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings, outlet=Outlet(20_000, 5.0, resolver=resolver))


@pytest.fixture
def queue(settings: Settings) -> Iterator[Queue]:
    made = Queue(settings)
    yield made
    made.close()


def make(api: TestClient, url: str = URL) -> dict[str, Any]:
    reply = api.post("/v1/webhooks", json={"url": url})
    assert reply.status_code == 201, reply.text
    found: dict[str, Any] = reply.json()
    return found


def test_an_endpoint_is_made_read_listed_rotated_and_deleted(api: TestClient) -> None:
    made = make(api)
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert 24 <= len(base64.b64decode(secret[6:])) <= 64
    assert made["id"].startswith("wh_")
    assert made["url"] == URL
    assert api.get(f"/v1/webhooks/{made['id']}").json() == made
    assert api.get("/v1/webhooks").json() == {"data": [made]}
    assert api.get(f"/v1/webhooks/{made['id']}/secret").json() == {"id": made["id"], "secret": secret}
    fresh = api.post(f"/v1/webhooks/{made['id']}/rotate").json()
    assert fresh["secret"] not in ("", secret)
    assert api.get(f"/v1/webhooks/{made['id']}/secret").json()["secret"] == fresh["secret"]
    assert api.delete(f"/v1/webhooks/{made['id']}").status_code == 204
    assert api.get(f"/v1/webhooks/{made['id']}").status_code == 404
    assert api.delete(f"/v1/webhooks/{made['id']}").status_code == 404
    assert make(api)["id"] != made["id"]


def test_a_url_has_one_endpoint(api: TestClient) -> None:
    made = make(api)
    reply = api.post("/v1/webhooks", json={"url": "https://SHOP.example.com:443/hooks/fluxfarm#x"})
    assert (reply.status_code, reply.json()["code"]) == (409, "conflict")
    assert made["id"] in reply.json()["detail"]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://shop.example.com/", "forbidden_url"),
        ("https://127.0.0.1/", "forbidden_url"),
        ("https://[::1]/", "forbidden_url"),
        ("https://localhost/", "forbidden_url"),
        ("https://shop.example.com:22/", "forbidden_url"),
        (INSIDE, "forbidden_url"),
        ("nonsense", "forbidden_url"),
        ("", "invalid_field"),
        ("https://shop.example.com/" + "a" * 2000, "invalid_field"),
        (7, "invalid_field"),
    ],
)
def test_urls_that_are_refused(api: TestClient, database: Database, url: Any, code: str) -> None:
    reply = api.post("/v1/webhooks", json={"url": url})
    assert (reply.status_code, reply.json()["code"], reply.json()["param"]) == (400, code, "url")
    reply = api.post("/v1/jobs", json=body(webhook=url))
    assert (reply.status_code, reply.json()["code"], reply.json()["param"]) == (400, code, "webhook")
    assert "10.0.0.1" not in reply.text
    with database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0
        assert session.scalar(select(func.count()).select_from(Endpoint)) == 0


def test_a_job_names_its_endpoint_and_its_end_is_in_the_outbox_and_at_the_broker(
    api: TestClient, hand: Hand, queue: Queue
) -> None:
    made = make(api)
    job = api.post("/v1/jobs", json=body(webhook=made["id"])).json()["aiRecord"]
    assert job["webhook"] == made["id"]
    hand.finish(hand.claim(job["uuid"]))
    (told,) = api.get(f"/v1/webhooks/{made['id']}/deliveries").json()["data"]
    assert (told["type"], told["job"], told["state"], told["attempts"]) == (
        "job.succeeded",
        job["uuid"],
        "pending",
        [],
    )
    other = api.post("/v1/jobs", json=body(webhook=made["id"])).json()["aiRecord"]
    assert queue.depth(WEBHOOK_QUEUE) == 0
    assert api.post(f"/v1/jobs/{other['uuid']}/cancel").status_code == 200
    assert queue.depth(WEBHOOK_QUEUE) == 2  # the fast path takes what else is due along
    assert api.delete(f"/v1/jobs/{job['uuid']}").status_code == 204
    (told,) = api.get(f"/v1/webhooks/{made['id']}/deliveries").json()["data"]
    assert (told["type"], told["job"]) == ("job.canceled", other["uuid"])


def test_a_url_becomes_an_endpoint_once_and_its_secret_can_be_read(api: TestClient) -> None:
    first, second = (api.post("/v1/jobs", json=body(webhook=URL)) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    (endpoint,) = api.get("/v1/webhooks").json()["data"]
    assert first.json()["aiRecord"]["webhook"] == second.json()["aiRecord"]["webhook"] == endpoint["id"]
    assert api.get(f"/v1/webhooks/{endpoint['id']}/secret").json()["secret"].startswith("whsec_")


def test_a_new_url_and_a_picture_come_together(api: TestClient) -> None:
    image = "data:image/png;base64," + base64.b64encode(picture()).decode()
    asked = body({"images": [image]}, webhook=URL)
    reply = api.post("/v1/jobs", json=asked | {"type": "IMAGE_EDITOR"})
    assert reply.status_code == 202, reply.text
    assert reply.json()["aiRecord"]["webhook"].startswith("wh_")


def test_a_name_that_does_not_resolve_now_is_taken(settings: Settings, api_key: str) -> None:
    def unknown(_host: str, _port: int) -> Sequence[str]:
        raise OSError

    app = create_app(settings, outlet=Outlet(20_000, 5.0, resolver=unknown))
    with TestClient(app, headers={"Authorization": f"Bearer {api_key}"}) as api:
        assert api.post("/v1/jobs", json=body(webhook=URL)).status_code == 202


def test_an_id_of_nobody_or_of_somebody_else_is_refused(
    api: TestClient, database: Database, other_tenant: Tenant
) -> None:
    made = make(api)
    with database.transaction() as session:
        session.execute(update(Endpoint).values(tenant_id=other_tenant.id))
    for name in ("wh_nobody", made["id"]):
        reply = api.post("/v1/jobs", json=body(webhook=name))
        assert (reply.status_code, reply.json()["code"], reply.json()["param"]) == (400, "invalid_field", "webhook")


def test_a_retried_job_tells_the_same_endpoint(api: TestClient) -> None:
    job = api.post("/v1/jobs", json=body(webhook=URL)).json()["aiRecord"]
    api.post(f"/v1/jobs/{job['uuid']}/cancel")
    again = api.post(f"/v1/jobs/{job['uuid']}/retry")
    assert again.status_code == 202, again.text
    assert again.json()["aiRecord"]["webhook"] == job["webhook"]


def test_a_test_event_is_sent_listed_and_replayed(api: TestClient, database: Database, queue: Queue) -> None:
    made = make(api)
    sent = api.post(f"/v1/webhooks/{made['id']}/test")
    assert (sent.status_code, sent.json()["type"], sent.json()["job"]) == (202, "test", None)
    assert queue.depth(WEBHOOK_QUEUE) == 1
    with database.transaction() as session:
        message = deliveries.claim(session, sent.json()["id"], 30)
        assert message is not None
        deliveries.give_up(session, message, deliveries.Answer(ms=12, status=500, error="http_500"))
    (told,) = api.get(f"/v1/webhooks/{made['id']}/deliveries?state=failed").json()["data"]
    assert told["nextAttemptAt"] is None
    assert told["lastError"] == "http_500"
    (attempt,) = told["attempts"]
    assert (attempt["number"], attempt["status"], attempt["error"], attempt["ms"]) == (1, 500, "http_500", 12)
    assert api.get(f"/v1/webhooks/{made['id']}/deliveries?state=delivered").json()["data"] == []
    replayed = api.post(f"/v1/webhooks/deliveries/{sent.json()['id']}/replay")
    assert (replayed.status_code, replayed.json()["id"], replayed.json()["state"]) == (
        202,
        sent.json()["id"],
        "pending",
    )
    assert replayed.json()["nextAttemptAt"] is not None
    assert queue.depth(WEBHOOK_QUEUE) == 2


def test_deliveries_come_page_by_page(api: TestClient) -> None:
    made = make(api)
    sent = [api.post(f"/v1/webhooks/{made['id']}/test").json()["id"] for _ in range(5)]
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = api.get(f"/v1/webhooks/{made['id']}/deliveries?limit=2{cursor and '&cursor=' + cursor}").json()
        found += [one["id"] for one in page["data"]]
        cursor = page["nextCursor"]
    assert found == sent[::-1]
    assert api.get(f"/v1/webhooks/{made['id']}/deliveries?cursor=x").status_code == 400


def test_a_disabled_endpoint_is_enabled_again(api: TestClient, database: Database) -> None:
    made = make(api)
    with database.transaction() as session:
        session.execute(update(Endpoint).values(disabled_at=func.now(), disabled_reason="410"))
    refused = api.post(f"/v1/webhooks/{made['id']}/test")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert api.get(f"/v1/webhooks/{made['id']}").json()["disabledReason"] == "410"
    assert api.post(f"/v1/webhooks/{made['id']}/enable").json()["disabledAt"] is None
    assert api.post(f"/v1/webhooks/{made['id']}/test").status_code == 202


def test_somebody_elses_is_nothing(api: TestClient, other_key: str, database: Database) -> None:
    made = make(api)
    sent = api.post(f"/v1/webhooks/{made['id']}/test").json()["id"]
    before = _rows(database)
    for method, path in (
        ("GET", f"/v1/webhooks/{made['id']}"),
        ("GET", f"/v1/webhooks/{made['id']}/secret"),
        ("GET", f"/v1/webhooks/{made['id']}/deliveries"),
        ("POST", f"/v1/webhooks/{made['id']}/rotate"),
        ("POST", f"/v1/webhooks/{made['id']}/enable"),
        ("POST", f"/v1/webhooks/{made['id']}/test"),
        ("POST", f"/v1/webhooks/deliveries/{sent}/replay"),
        ("DELETE", f"/v1/webhooks/{made['id']}"),
    ):
        headers = {"Authorization": f"Bearer {other_key}"}
        assert api.request(method, path, headers=headers).status_code == 404, path
    assert api.get("/v1/webhooks", headers=headers).json() == {"data": []}
    assert _rows(database) == before
    theirs = api.post("/v1/webhooks", json={"url": URL}, headers=headers)
    assert theirs.status_code == 201  # the same URL: an endpoint and a secret of their own
    assert theirs.json()["id"] != made["id"]


def _rows(database: Database) -> list[Any]:
    with database.transaction() as session:
        return [
            *session.execute(select(Endpoint.id, Endpoint.secrets, Endpoint.disabled_at)).all(),
            *session.execute(select(Delivery.id, Delivery.state, Delivery.next_attempt_at)).all(),
        ]


def test_a_key_without_the_scope_is_refused(api: TestClient, database: Database, tenant: Tenant) -> None:
    with database.transaction() as session:
        _, secret = tenants.create_key(session, tenant.id, "admin", ["admin"])
    for method, path in (("GET", "/v1/webhooks"), ("POST", "/v1/webhooks"), ("GET", "/v1/webhooks/wh_x/secret")):
        reply = api.request(method, path, json={"url": URL}, headers={"Authorization": f"Bearer {secret}"})
        assert reply.status_code == 403


def test_there_is_an_end_to_endpoints(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.repository.endpoints.MAX_ENDPOINTS", 2)
    for n in range(2):
        make(api, f"{URL}/{n}")
    assert api.post("/v1/webhooks", json={"url": URL}).status_code == 409
    assert api.post("/v1/jobs", json=body(webhook=URL)).status_code == 409
    assert api.post("/v1/jobs", json=body(webhook=f"{URL}/1")).status_code == 202


@pytest.mark.parametrize("name", webhooks.EXAMPLES)
def test_the_examples_work(api: TestClient, name: str) -> None:
    assert api.post("/v1/webhooks", json=webhooks.EXAMPLES[name]["value"]).status_code == 201


def test_the_statuses_that_come_are_described(api: TestClient, app: FastAPI) -> None:
    made = make(api)["id"]
    described = app.openapi()["paths"]
    for method, template, path in (
        ("post", "/v1/webhooks", "/v1/webhooks"),
        ("get", "/v1/webhooks/{webhook}", "/v1/webhooks/x"),
        ("get", "/v1/webhooks/{webhook}/secret", "/v1/webhooks/x/secret"),
        ("get", "/v1/webhooks/{webhook}/deliveries", f"/v1/webhooks/{made}/deliveries?limit=x"),
        ("post", "/v1/webhooks/{webhook}/test", f"/v1/webhooks/{made}/test"),
        ("post", "/v1/webhooks/{webhook}/rotate", "/v1/webhooks/x/rotate"),
        ("post", "/v1/webhooks/deliveries/{delivery}/replay", "/v1/webhooks/deliveries/x/replay"),
        ("delete", "/v1/webhooks/{webhook}", f"/v1/webhooks/{made}"),
    ):
        reply = api.request(method, path)
        assert str(reply.status_code) in described[template][method]["responses"], (method, path, reply.status_code)
    wrong = api.put("/v1/webhooks/x/rotate")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
