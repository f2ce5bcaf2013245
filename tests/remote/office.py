"""A farm that sends its jobs away: the API, a remote worker in this process, and the stubs of providers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.testclient import TestClient

from api.farm import Farm
from api.main import create_app
from fluxfarm.settings import Settings
from storage.database import Database
from storage.queue import REMOTE_QUEUE
from storage.records import Job
from storage.remote_records import RemoteCall
from storage.repository import calls
from tests.stubs.server import KEY, Stub, serving
from workers.providers.remote import RemoteRenderer
from workers.worker import RenderWorker

DEV = "black-forest-labs/flux-2-dev"


def order(prompt: str = "a red fox", *, prompt_object: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A body that only a provider of [dev] can serve."""
    asked = {"prompt": prompt, "size": "512x512", "seed": 7, **(prompt_object or {})}
    return {"type": "IMAGE_GENERATOR", "model": DEV, "promptObject": asked, **changes}


@dataclass
class Office:
    """The parts."""

    settings: Settings
    database: Database
    api: TestClient
    stubs: dict[str, Stub]
    worker: RenderWorker
    threads: list[threading.Thread] = field(default_factory=list)

    @property
    def renderer(self) -> RemoteRenderer:
        assert isinstance(self.worker.provider, RemoteRenderer)
        return self.worker.provider

    def post(self, prompt: str = "a red fox", **changes: Any) -> dict[str, Any]:
        reply = self.api.post("/v1/jobs", json=order(prompt, **changes))
        assert reply.status_code == 202, reply.text
        record: dict[str, Any] = reply.json()["aiRecord"]
        return record

    def record(self, uuid: str) -> dict[str, Any]:
        record: dict[str, Any] = self.api.get(f"/v1/jobs/{uuid}").json()["aiRecord"]
        return record

    def work(self, uuid: str) -> str:
        """One ticket."""
        return self.worker.handle(REMOTE_QUEUE, UUID(uuid))

    def finish(self, uuid: str, rounds: int = 8) -> dict[str, Any]:
        """Tickets until the job is over, without the pauses between retries."""
        for _ in range(rounds):
            self.work(uuid)
            if (record := self.record(uuid))["status"] not in {"QUEUED", "RUNNING"}:
                return record
            with self.database.transaction() as session:
                job = session.get_one(Job, UUID(uuid))
                job.run_after = None
        raise AssertionError(record)

    def finish_postponed(self, uuid: str) -> dict[str, Any]:
        """The same of a job that waits for its next try."""
        with self.database.transaction() as session:
            session.get_one(Job, UUID(uuid)).run_after = None
        return self.finish(uuid)

    def render(self, prompt: str = "a red fox", **changes: Any) -> dict[str, Any]:
        return self.finish(self.post(prompt, **changes)["uuid"])

    def calls(self, uuid: str) -> list[RemoteCall]:
        with self.database.transaction() as session:
            return calls.of_job(session, UUID(uuid))

    def beside(self, work: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=work)
        thread.start()
        self.threads.append(thread)
        return thread


@contextmanager
def opened(settings: Settings, database: Database, api_key: str, *stubs: Stub, **changes: Any) -> Iterator[Office]:
    """An office whose providers are these stubs."""
    with ExitStack() as stack:
        keyed: dict[str, Any] = {}
        for stub in stubs:
            url = stack.enter_context(serving(stub))
            keyed |= {f"{stub.name}_url": url, f"{stub.name}_key": SecretStr(KEY)}
        own = settings.model_copy(update={"remote_patience": 1.0, **keyed, **changes})
        headers = {"Authorization": f"Bearer {api_key}"}
        api = stack.enter_context(TestClient(create_app(own), headers=headers, follow_redirects=False))
        worker = RenderWorker(own, (REMOTE_QUEUE,), slots=4)
        worker.start()
        office = Office(own, database, api, {stub.name: stub for stub in stubs}, worker)
        try:
            yield office
        finally:
            for thread in office.threads:
                thread.join(20)
            worker.stop()


@contextmanager
def listening(
    settings: Settings, database: Database, api_key: str, *stubs: Stub, **changes: Any
) -> Iterator[tuple[Office, Farm]]:
    """An office whose API others can reach over HTTP at ``settings.public_url``, and the parts of that API."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with opened(settings, database, api_key, *stubs, public_url=url, **changes) as office:
            app = create_app(office.settings)
            with on_the_wire(app, listener):
                yield office, app.state.farm
                for stub in office.stubs.values():
                    for teller in stub.tellers:
                        teller.join(5)


@contextmanager
def on_the_wire(app: FastAPI, listener: socket.socket) -> Iterator[None]:
    """The application behind a real server."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(10)
