"""Whatever is sent in a dialect is answered in it; what is not the tenant's own does not exist in any of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select
from starlette.testclient import TestClient

from api.main import create_app
from fluxfarm.outbound import Outlet
from fluxfarm.settings import Settings
from storage.database import Database
from storage.records import Job
from storage.webhook_records import Endpoint
from tests.api.samples import SMALL, Hand, body, picture, rows

JSON = {"Content-Type": "application/json"}
SIZE = {"width": 64, "height": 64}
ONE_MIN = {"type": "IMAGE_GENERATOR", "model": SMALL, "promptObject": {"prompt": "a fox", "aspect_ratio": "1:1"}}
#: what a call of each dialect is, and the word in its errors
CALLS: dict[str, tuple[str, dict[str, Any], Callable[[Any], Any]]] = {
    "1min.ai": ("/api/features", ONE_MIN, lambda reply: reply["message"]),
    "cloudflare": (
        f"/client/v4/accounts/a/ai/run/{SMALL}",
        {"prompt": "a fox", **SIZE},
        lambda reply: reply["errors"][0]["message"],
    ),
    "fal": (f"/fal/queue/{SMALL}", {"prompt": "a fox", "image_size": SIZE}, lambda reply: reply["detail"]),
    "replicate": (
        "/replicate/v1/predictions",
        {"version": SMALL, "input": {"prompt": "a fox", "aspect_ratio": "1:1"}},
        lambda reply: reply["detail"],
    ),
}
HOOK = "https://shop.example.com/hooks/farm"


def resolver(_host: str, _port: int) -> Sequence[str]:
    return ["93.184.215.14"]


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings.model_copy(update={"longest_wait": 1}), outlet=Outlet(20_000, 5.0, resolver=resolver))


def corpus(good: bytes) -> list[bytes]:
    """Bodies that readers disagree on, or that no reader takes."""

    def with_seed(text: str) -> bytes:
        return good.replace(b'"a fox"', b'"a fox", "seed": ' + text.encode(), 1)

    return [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        good[:-1],
        good + b"x",
        b"\xef\xbb\xbf" + good,
        good.decode().encode("utf-16"),
        good.replace(b"a fox", b"\xc3\x28"),
        good.replace(b"a fox", b"\\u0000"),
        good.replace(b"a fox", b"\\ud800"),
        good.replace(b'"prompt"', b'"prompt": "a", "prompt"'),
        *(with_seed(text) for text in ("NaN", "1e999", "9" * 5000, "-1", "7.5", '"7"', "true", "[" * 100_000)),
    ]


@pytest.mark.parametrize("dialect", CALLS)
def test_raw_bodies(api: TestClient, database: Database, dialect: str) -> None:
    path, good, message = CALLS[dialect]
    for raw in corpus(json.dumps(good).encode()):
        reply = api.post(path, content=raw, headers=JSON)
        assert reply.status_code in {400, 422}, (raw[:60], reply.text)
        assert message(reply.json()), raw[:60]
    assert api.post(path, content=b"{}", headers={"Content-Type": "text/plain"}).status_code in {400, 415}
    assert api.post(path, content=b"x", headers={"Content-Type": "multipart/form-data"}).status_code in {400, 415}
    assert set(rows(database).values()) == {0}


@pytest.mark.parametrize("dialect", CALLS)
def test_keys(app: FastAPI, api_key: str, dialect: str) -> None:
    path, good, message = CALLS[dialect]
    with TestClient(app) as client:
        for headers in ({}, {"Authorization": "Bearer nobody"}, {"Authorization": "Key"}, {"API-KEY": "x" * 5000}):
            reply = client.post(path, json=good, headers=headers)
            assert reply.status_code == 401
            assert message(reply.json())
        wrong = {"prompt": 7}
        for scheme in ("Bearer", "Key", "Token"):
            reply = client.post(path, json=wrong, headers={"Authorization": f"{scheme} {api_key}"})
            assert reply.status_code in {400, 422}


@pytest.mark.parametrize("dialect", ["fal", "replicate"])
def test_an_idempotency_key_makes_one_job(api: TestClient, database: Database, dialect: str) -> None:
    path, good, message = CALLS[dialect]
    first, again = (api.post(path, json=good, headers={"Idempotency-Key": "one"}) for _ in range(2))
    assert first.status_code == again.status_code
    assert again.headers["idempotency-replayed"] == "true"
    other = api.post(
        path, json=json.loads(json.dumps(good).replace("a fox", "a bear")), headers={"Idempotency-Key": "one"}
    )
    assert other.status_code == 422
    assert message(other.json())
    assert rows(database)["jobs"] == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/features/{}"),
        ("GET", f"/fal/queue/{SMALL}/requests/{{}}"),
        ("GET", f"/fal/queue/{SMALL}/requests/{{}}/status"),
        ("GET", f"/fal/queue/{SMALL}/requests/{{}}/status/stream"),
        ("PUT", f"/fal/queue/{SMALL}/requests/{{}}/cancel"),
        ("GET", "/replicate/v1/predictions/{}"),
        ("POST", "/replicate/v1/predictions/{}/cancel"),
    ],
)
def test_a_rivals_job_does_not_exist(api: TestClient, other_key: str, method: str, path: str) -> None:
    uuid = api.post("/v1/jobs", json=body()).json()["aiRecord"]["uuid"]
    rival = {"Authorization": f"Bearer {other_key}"}
    for name in (uuid, "00000000-0000-4000-8000-000000000000", "no-uuid"):
        reply = api.request(method, path.format(name), headers=rival)
        assert reply.status_code == 404, (name, reply.text)
    assert api.get(f"/v1/jobs/{uuid}").json()["aiRecord"]["status"] == "QUEUED"
    assert api.get("/replicate/v1/predictions", headers=rival).json()["results"] == []


def test_a_rivals_file_does_not_exist(api: TestClient, other_key: str) -> None:
    rival = {"Authorization": f"Bearer {other_key}"}
    made = api.post("/replicate/v1/files", files={"content": picture()}).json()
    assert api.get(f"/replicate/v1/files/{made['id']}").json() == made
    assert api.get(f"/replicate/v1/files/{made['id']}", headers=rival).status_code == 404
    inputs = {"prompt": "a fox", "input_images": [made["urls"]["get"]]}
    stolen = api.post("/replicate/v1/predictions", json={"version": SMALL, "input": inputs}, headers=rival)
    assert (stolen.status_code, stolen.json()["invalid_fields"][0]["field"]) == (422, "input.input_images.0")
    own = api.post("/replicate/v1/predictions", json={"version": SMALL, "input": inputs})
    assert own.status_code == 201, own.text
    for form in ({}, {"content": b"no picture"}, [("content", picture()), ("content", picture())]):
        reply = api.post("/replicate/v1/files", files=form or {"x": b""})
        assert reply.status_code == 422, reply.text


def test_each_dialects_webhook_is_kept_in_its_form(api: TestClient, database: Database) -> None:
    fal, asked, _ = CALLS["fal"]
    replicate, predicted, _ = CALLS["replicate"]
    assert api.post(fal, json=asked, params={"fal_webhook": HOOK}).status_code == 200
    assert api.post(replicate, json={**predicted, "webhook": HOOK}).status_code == 201
    only_end = {**predicted, "webhook": HOOK, "webhook_events_filter": ["completed"]}
    assert api.post(replicate, json=only_end).status_code == 201
    assert api.post(replicate, json=only_end).status_code == 201
    assert api.post("/v1/jobs", json=body(webhook=HOOK)).status_code == 202
    with database.transaction() as session:
        made = {one.id: one for one in session.scalars(select(Endpoint))}
        told = [made[job.webhook_id or ""] for job in session.scalars(select(Job).order_by(Job.seq))]
    assert [(one.form, one.moments) for one in told] == [
        ("fal", ["end"]),
        ("replicate", ["start", "end"]),
        ("replicate", ["end"]),
        ("replicate", ["end"]),
        ("standard", ["end"]),
    ]
    assert len(made) == 4
    for one in api.get("/v1/webhooks").json()["data"]:
        secret = api.get(f"/v1/webhooks/{one['id']}/secret")
        assert secret.status_code == (200 if one["form"] == "standard" else 409), one


@pytest.mark.parametrize("url", ["http://shop.example.com/", "https://10.0.0.1/", "https://localhost/", "ftp://x", "x"])
def test_webhooks_that_lead_inside_are_refused(api: TestClient, url: str) -> None:
    fal, asked, _ = CALLS["fal"]
    replicate, predicted, _ = CALLS["replicate"]
    assert api.post(fal, json=asked, params={"fal_webhook": url}).status_code == 422
    assert api.post(replicate, json={**predicted, "webhook": url}).status_code == 422


@pytest.mark.parametrize(
    "target",
    [
        "",
        "http://queue.fal.run/x/y",
        "https://queue.fal.run.evil.example/x",
        "https://rest.fal.ai/x",
        "https://[/",
        "https://queue.fal.run/a%00b",
        "/v1",
    ],
)
def test_the_proxy_goes_nowhere_else(api: TestClient, target: str) -> None:
    reply = api.post("/fal/proxy", json={}, headers={"x-fal-target-url": target})
    assert (reply.status_code, reply.json()["detail"][0]["loc"]) == (422, ["body", "x-fal-target-url"])


@pytest.mark.parametrize(
    ("path", "status"),
    [("/api/nothing", 404), ("/client/v4/nothing", 404), ("/fal/nothing", 404), ("/replicate/v1/nothing", 404)],
)
def test_unknown_paths_speak_the_dialect(api: TestClient, path: str, status: int) -> None:
    reply = api.get(path)
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/json"
    assert api.delete("/api/features").headers["allow"] == "POST"


def test_an_output_takes_a_token_beside_its_signature(api: TestClient, hand: Hand) -> None:
    path, asked, _ = CALLS["replicate"]
    made = api.post(path, json=asked).json()
    hand.finish(hand.claim(made["id"]), (picture(),))
    (url,) = api.get(f"{path}/{made['id']}").json()["output"]
    link = url.removeprefix("http://127.0.0.1:8000")
    for headers in ({}, {"Authorization": ""}, {"Authorization": "Bearer nobody"}):
        reply = api.get(link, headers=headers)
        assert (reply.status_code, reply.headers["content-type"], reply.content) == (200, "image/png", picture())
    for broken in (link[:-1] + ("0" if link[-1] != "0" else "1"), link.partition("?")[0], link.replace("png", "gif")):
        assert api.get(broken).status_code == 403
    assert api.get(link.replace("/replicate/delivery/", "/objects/")).status_code == 403  # other keys sign those
