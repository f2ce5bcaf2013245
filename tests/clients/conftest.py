"""The farm that clients talk to: uvicorn, PostgreSQL, Valkey, and a worker with the small model."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.main import create_app
from fluxfarm.settings import Settings
from fluxfarm.sources import parse_sources
from storage.database import Database
from storage.objects import make_store
from tests.api.samples import Hand
from tests.clients.calls import Call
from tests.clients.rendering import Seen, rendering, serving
from tests.making import MODEL, QUEUE
from workers.providers.local import LocalProvider


@dataclass(frozen=True)
class Place:
    """Where a client finds the farm."""

    url: str  #: without ``/v1``
    key: str
    seen: Seen
    settings: Settings
    database: Database


@pytest.fixture(scope="session")
def provider(klein_folder: Path) -> Iterator[LocalProvider]:
    """The model, loaded once."""
    made = LocalProvider(Settings(models=parse_sources(f"{MODEL}={klein_folder}"), device="cpu"), (QUEUE,))
    made.warm_up()
    yield made
    made.close()


@pytest.fixture
def idle(settings: Settings, database: Database, api_key: str, request: pytest.FixtureRequest) -> Iterator[Place]:
    """A farm whose workers are away."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        here = settings.model_copy(update={"public_url": url})
        seen = Seen(create_app(here))
        with serving(seen, listener):
            yield Place(url, api_key, seen, here, database)
    for mark in request.node.iter_markers("client_call"):
        (call,) = mark.args
        assert isinstance(call, Call)
        assert any(call.matches(one) for one in seen.requests), (call, seen.requests)


@pytest.fixture
def place(idle: Place, provider: LocalProvider) -> Iterator[Place]:
    """A farm that renders."""
    with rendering(idle.settings, provider, QUEUE):
        yield idle


@pytest.fixture
def hand(idle: Place) -> Iterator[Hand]:
    """Does what a worker does, without rendering."""
    store = make_store(idle.settings)
    yield Hand(idle.database, store)
    store.close()
