"""A browser without JavaScript: it keeps cookies and says where it comes from, as browsers do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.api.conftest import app, hand, store
from tests.clients.conftest import idle, place, provider

__all__ = ["app", "hand", "idle", "place", "provider", "store"]  # fixtures: the API, and a farm that renders

OURS = {"Sec-Fetch-Site": "same-origin"}


def log_in(client: TestClient, key: str) -> None:
    reply = client.post("/dashboard/login", data={"key": key})
    assert reply.status_code == 303, reply.text


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
