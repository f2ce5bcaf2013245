"""A running API for the tests: in the process for plain calls, behind a real uvicorn for what streams or waits."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.main import create_app
from fluxfarm.scopes import Scope
from fluxfarm.settings import Settings
from storage.database import Database
from storage.objects import ObjectStore, make_store
from storage.records import Tenant
from storage.repository import tenants
from tests.api.samples import Hand
from workers.cleaning import Cleaner
from workers.retention import Retention


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def api(app: FastAPI, api_key: str) -> Iterator[TestClient]:
    with TestClient(app, headers={"Authorization": f"Bearer {api_key}"}, follow_redirects=False) as client:
        yield client


@pytest.fixture
def store(settings: Settings) -> Iterator[ObjectStore]:
    made = make_store(settings)
    yield made
    made.close()


@pytest.fixture
def hand(database: Database, store: ObjectStore) -> Hand:
    return Hand(database, store)


@pytest.fixture
def other_tenant(database: Database) -> Tenant:
    with database.transaction() as session:
        return tenants.ensure_tenant(session, "rival")


@pytest.fixture
def other_key(database: Database, other_tenant: Tenant) -> str:
    with database.transaction() as session:
        return tenants.create_key(session, other_tenant.id, "theirs", Scope)[1]


@pytest.fixture
def server(app: FastAPI) -> Iterator[str]:
    """The URL of a real server on a free port of loopback."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not running.started and time.monotonic() < deadline:
        time.sleep(0.01)
    assert running.started
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    running.should_exit = True
    thread.join(timeout=10)
    listener.close()
    assert not thread.is_alive()


@pytest.fixture
def web(server: str, api_key: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {api_key}"}
    with httpx.Client(base_url=server, headers=headers, timeout=20, trust_env=False) as client:
        yield client


@pytest.fixture
def retention(settings: Settings, database: Database) -> Retention:
    return Retention(settings, database)


@pytest.fixture
def cleaner(settings: Settings, database: Database, store: ObjectStore) -> Cleaner:
    return Cleaner(settings.model_copy(update={"lease": 0.0001}), database, store)
