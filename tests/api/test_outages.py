"""What a caller sees while a part of the farm is down."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from api.main import create_app
from fluxfarm.settings import Settings
from storage.database import Database
from storage.objects import HASTY
from tests.api.samples import body, picture, rows


@contextmanager
def silent_port() -> Iterator[int]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as deaf:
        yield deaf.getsockname()[1]


@pytest.fixture
def dead_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return int(closed.getsockname()[1])


def changed(settings: Settings, api_key: str, **parts: str) -> TestClient:
    secret = {name: SecretStr(url) for name, url in parts.items()}
    return TestClient(create_app(settings.model_copy(update=secret)), headers={"API-KEY": api_key})


def test_without_a_broker_jobs_are_accepted(
    settings: Settings, api_key: str, database: Database, dead_port: int
) -> None:
    with changed(settings, api_key, redis_url=f"redis://127.0.0.1:{dead_port}/0") as api:
        started = time.monotonic()
        assert api.post("/v1/jobs", json=body()).status_code == 202
        assert time.monotonic() - started < 1.0
        ready = api.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["parts"] == {"database": "ok", "broker": "broker_unavailable", "store": "ok"}
    assert rows(database)["jobs"] == 1


def test_a_broker_that_hangs_holds_nobody_up(settings: Settings, api_key: str, database: Database) -> None:
    with silent_port() as port, changed(settings, api_key, redis_url=f"redis://127.0.0.1:{port}/0") as api:
        for _ in range(3):
            started = time.monotonic()
            assert api.post("/v1/jobs", json=body()).status_code == 202
            assert time.monotonic() - started < 1.2
    assert rows(database)["jobs"] == 3


def test_without_a_database(settings: Settings, api_key: str, dead_port: int) -> None:
    with changed(settings, api_key, database_url=f"postgresql://nobody@127.0.0.1:{dead_port}/none") as api:
        for reply in (api.get("/v1/jobs"), api.post("/v1/jobs", json=body())):
            assert (reply.status_code, reply.json()["code"]) == (503, "database_unavailable")
            assert reply.json()["retryable"] is True
            assert int(reply.headers["retry-after"]) >= 1
        ready = api.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "down")
        assert api.get("/healthz").json() == {"status": "ok"}


def test_a_database_that_hangs(settings: Settings, api_key: str) -> None:
    with (
        silent_port() as port,
        changed(settings, api_key, database_url=f"postgresql://nobody@127.0.0.1:{port}/none") as api,
    ):
        started = time.monotonic()
        reply = api.post("/v1/jobs", json=body())
        assert (reply.status_code, reply.json()["code"]) == (503, "database_unavailable")
        assert time.monotonic() - started < 5.0


def test_everything_is_ready(api: TestClient) -> None:
    ready = api.get("/readyz")
    assert ready.json() == {"status": "ready", "parts": {"database": "ok", "broker": "ok", "store": "ok"}}


def test_with_the_store_gone_nothing_is_erased(settings: Settings, api: TestClient, database: Database) -> None:
    uuid = api.post("/v1/jobs", json=body()).json()["aiRecord"]["uuid"]
    objects = settings.data_dir / "objects"
    objects.rename(settings.data_dir / "elsewhere")
    refused = api.delete(f"/v1/jobs/{uuid}")
    assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
    assert rows(database)["jobs"] == 1
    assert api.get("/readyz").json()["status"] == "degraded"


def test_a_store_that_hangs_is_asked_once(settings: Settings, api_key: str, database: Database) -> None:
    shown = picture()
    uri = "data:image/png;base64," + base64.b64encode(shown).decode()
    edit = body({"images": [uri]}, type="IMAGE_EDITOR")
    with silent_port() as port:
        there = {"s3_bucket": "made-up", "s3_endpoint_url": f"http://127.0.0.1:{port}", "s3_access_key_id": "a"}
        deaf = settings.model_copy(update={**there, "s3_secret_access_key": SecretStr("b")})
        with TestClient(create_app(deaf), headers={"API-KEY": api_key}) as api:
            upload = partial(api.post, "/v1/references", files={"file": shown})
            for call in (upload, partial(api.post, "/v1/jobs", json=edit)):
                started = time.monotonic()
                reply = call()
                assert (reply.status_code, reply.json()["code"]) == (503, "store_unavailable"), reply.text
                assert time.monotonic() - started < 2.5 * HASTY.read
    assert rows(database)["jobs"] == rows(database)["reference_images"] == 0
    with database.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM leftovers")) == 2  # for the scheduler


def test_a_fault_of_ours_tells_nothing(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the inside: s3cret")

    monkeypatch.setattr("storage.repository.jobs.list_page", fail)
    with capture_logs() as logged:
        reply = api.get("/v1/jobs", headers={"x-request-id": "mine"})
    assert [line["event"] for line in logged] == ["request_failed"]
    assert (reply.status_code, reply.json()["code"]) == (500, "internal_error")
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["instance"] == "urn:fluxfarm:request:mine"
    assert "s3cret" not in reply.text
    assert reply.headers["x-content-type-options"] == "nosniff"
