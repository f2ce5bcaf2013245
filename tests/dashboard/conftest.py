"""A browser without JavaScript: it keeps cookies and says where it comes from, as browsers do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser
from starlette.testclient import TestClient

from tests.api.conftest import app, hand, store
from tests.clients.conftest import idle, place, provider
from tests.dashboard.browsing import browsing

__all__ = ["app", "hand", "idle", "place", "provider", "store"]  # fixtures: the API, and a farm that renders

OURS = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Closed before the next file's tests, which could run no event loop of their own beside Playwright's."""
    with browsing() as browser:
        yield browser


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
