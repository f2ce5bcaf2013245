"""A browser without JavaScript: it keeps cookies and says where it comes from, as browsers do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.main import create_app
from fluxfarm.settings import Settings
from storage.database import Database
from storage.objects import ObjectStore, make_store
from tests.api.samples import Hand
from tests.clients.conftest import idle, place, provider

__all__ = ["idle", "place", "provider"]  # fixtures: a farm that renders, for the browser

OURS = {"Sec-Fetch-Site": "same-origin"}


def log_in(client: TestClient, key: str) -> None:
    reply = client.post("/dashboard/login", data={"key": key})
    assert reply.status_code == 303, reply.text


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def visitor(app: FastAPI) -> Iterator[TestClient]:
    """Somebody who is not logged in."""
    with TestClient(app, headers=OURS, follow_redirects=False) as client:
        yield client


@pytest.fixture
def browser(visitor: TestClient, api_key: str) -> TestClient:
    """Somebody who is."""
    log_in(visitor, api_key)
    return visitor


@pytest.fixture
def store(settings: Settings) -> Iterator[ObjectStore]:
    made = make_store(settings)
    yield made
    made.close()


@pytest.fixture
def hand(database: Database, store: ObjectStore) -> Hand:
    return Hand(database, store)
