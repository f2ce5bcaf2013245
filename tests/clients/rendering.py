"""A real API on loopback and a real worker behind it, in threads of the test's process."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import uvicorn
from fastapi import FastAPI
from redis import Redis
from starlette.types import Message, Receive, Scope, Send

from api.farm import Farm
from fluxfarm.settings import Settings
from workers.providers.local import LocalProvider
from workers.worker import RenderWorker


@dataclass
class Seen:
    """The application, and every request that came to it, as ``METHOD /path``."""

    app: FastAPI
    requests: list[str] = field(default_factory=list)
    lost: int = 0  #: replies that are still to be lost: the work is done, and the caller sees a 500

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.requests.append(f"{scope['method']} {scope['path']}")
            if self.lost:
                self.lost -= 1
                await self.app(scope, receive, _nowhere)
                await send({"type": "http.response.start", "status": 500, "headers": []})
                await send({"type": "http.response.body", "body": b""})
                return
        await self.app(scope, receive, send)

    @property
    def farm(self) -> Farm:
        """The parts of the running application."""
        farm: Farm = self.app.state.farm
        return farm


async def _nowhere(_message: Message) -> None:
    pass


@contextmanager
def serving(app: Seen, listener: socket.socket) -> Iterator[None]:
    """A real server on loopback."""
    running = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    until = time.monotonic() + 10
    while not running.started and time.monotonic() < until:
        time.sleep(0.01)
    assert running.started
    yield
    running.should_exit = True
    thread.join(timeout=10)
    assert not thread.is_alive()


@contextmanager
def rendering(settings: Settings, provider: LocalProvider, *queues: str) -> Iterator[RenderWorker]:
    """A worker that takes the tickets of these queues as Celery would, one after another."""
    worker = RenderWorker(settings, queues, slots=1)
    worker.provider = provider  # shared by all tests: loading the model is what takes time
    worker.start()
    ended = threading.Event()
    thread = threading.Thread(target=_take_tickets, args=(worker, ended), daemon=True)
    thread.start()
    yield worker
    ended.set()
    thread.join(timeout=20)
    assert not thread.is_alive()
    worker.provider = LocalProvider(settings, ())  # the shared one stays open
    worker.stop()


def _take_tickets(worker: RenderWorker, ended: threading.Event) -> None:
    with Redis.from_url(worker.settings.redis_url.get_secret_value()) as redis:
        while not ended.is_set():
            found = redis.blpop(list(worker.queues), timeout=0.1)
            if found is not None:
                queue, ticket = found
                worker.handle(queue.decode(), UUID(json.loads(ticket)["headers"]["id"]))
