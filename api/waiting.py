"""All that waits: long polls and event streams sleep on the event loop, never in a thread, until Postgres notifies."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final
from uuid import UUID

import structlog
from fastapi.concurrency import run_in_threadpool
from pydantic import SecretStr

from fluxfarm.errors import DatabaseUnavailable, NotFound
from fluxfarm.jobs import JobState
from storage.database import Database
from storage.listening import listen_async
from storage.repository import events, jobs

LOOK_AGAIN: Final = 2.0  #: seconds between looks at the record while no notification can come
LOOK_ANYWAY: Final = 10.0  #: the same while they can: a connection may be dead without anybody's notice
FIRST_BACKOFF: Final = 0.25  #: seconds before the listener connects again; doubles up to
LONGEST_BACKOFF: Final = 5.0
HEARTBEAT: Final = 15.0  #: seconds of silence after which a stream says that it lives

log = structlog.get_logger()


class Changes:
    """Wakes those who wait for a job; one connection listens for the whole process."""

    def __init__(self, url: SecretStr) -> None:
        """``url`` is the database's; nothing connects before ``listen``."""
        self._url = url
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self.listening = False

    async def listen(self) -> None:
        """Runs until it is cancelled; connects again when the connection breaks."""
        backoff = FIRST_BACKOFF
        while True:
            try:
                async for notice in listen_async(self._url, (events.JOB_CHANGED,)):
                    if notice is None:
                        self.listening, backoff = True, FIRST_BACKOFF
                        self._wake_all()
                    else:
                        self._wake(notice.payload)
            except DatabaseUnavailable:
                if self.listening:
                    log.warning("listener_disconnected")
            except Exception:  # without this task the waiters would only look every few seconds
                log.exception("listener_failed")
            finally:
                self.listening = False
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311
            backoff = min(2 * backoff, LONGEST_BACKOFF)

    @contextmanager
    def watch(self, uuid: UUID) -> Iterator[asyncio.Event]:
        """An event that is set whenever the job has changed."""
        changed, name = asyncio.Event(), str(uuid)
        waiters = self._waiters.setdefault(name, set())
        waiters.add(changed)
        try:
            yield changed
        finally:
            waiters.discard(changed)
            if not waiters and self._waiters.get(name) is waiters:
                del self._waiters[name]

    async def pause(self, changed: asyncio.Event, seconds: float) -> None:
        """Until the job has changed, or it is time to look at it anyway; at most ``seconds``."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, LOOK_ANYWAY if self.listening else LOOK_AGAIN)):
                await changed.wait()

    def _wake(self, name: str) -> None:
        for changed in self._waiters.get(name, ()):
            changed.set()

    def _wake_all(self) -> None:
        for name in self._waiters:
            self._wake(name)


async def until_over(database: Database, changes: Changes, tenant_id: UUID, uuid: UUID, seconds: float) -> None:
    """Returns when the job is over, or after ``seconds``.

    Raises:
        NotFound: no such job, or it was erased meanwhile.
    """
    now = asyncio.get_running_loop().time
    end = now() + seconds
    with changes.watch(uuid) as changed:
        while True:
            changed.clear()
            state = await run_in_threadpool(_read_state, database, tenant_id, uuid)
            left = end - now()
            if state.is_final or left <= 0:
                return
            await changes.pause(changed, left)


async def event_stream(
    database: Database, changes: Changes, tenant_id: UUID, uuid: UUID, last_id: int | None
) -> AsyncIterator[bytes]:
    """Server-sent events after ``last_id`` (None: from the beginning) until the job is over or erased.

    The acceptance has no row of its own: event 0 says QUEUED.
    """
    now = asyncio.get_running_loop().time
    if last_id is None:
        yield _event(0, "status", {"status": JobState.QUEUED.value})
        last_id = 0
    spoke = now()
    with changes.watch(uuid) as changed:
        while True:
            changed.clear()
            try:
                state, fresh = await run_in_threadpool(_read_events, database, tenant_id, uuid, last_id)
            except NotFound:
                return
            except DatabaseUnavailable:
                state, fresh = None, []
            for last_id, kind, payload in fresh:  # the last id is where the next look starts
                yield _event(last_id, kind, payload)
                spoke = now()
            if state is not None and state.is_final:
                return
            if now() - spoke >= HEARTBEAT:
                yield b": still here\n\n"
                spoke = now()
            await changes.pause(changed, max(0.1, spoke + HEARTBEAT - now()))


def _event(number: int, kind: str, payload: dict[str, Any]) -> bytes:
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps(payload)}\n\n".encode()


def _read_state(database: Database, tenant_id: UUID, uuid: UUID) -> JobState:
    with database.transaction() as session:
        return jobs.status(session, tenant_id, uuid)


def _read_events(
    database: Database, tenant_id: UUID, uuid: UUID, last_id: int
) -> tuple[JobState, list[tuple[int, str, dict[str, Any]]]]:
    with database.transaction() as session:
        state = jobs.status(session, tenant_id, uuid)  # first: the event of a state is committed together with it
        found = events.since(session, uuid, last_id)
        return state, [(event.id, event.kind, event.payload) for event in found]
