"""All that waits sleeps on the event loop, never in a thread, until Postgres notifies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final
from uuid import UUID

import structlog
from pydantic import SecretStr

from fluxfarm.errors import DatabaseUnavailable
from storage.listening import listen_async
from storage.polls import Polls
from storage.records import Job
from storage.repository import events

LOOK_AGAIN: Final = 2.0  #: seconds between looks at the record while no notification can come
LOOK_ANYWAY: Final = 10.0  #: the same while they can: a connection may be dead without anybody's notice
FIRST_BACKOFF: Final = 0.25  #: seconds before the listener connects again; doubles up to
LONGEST_BACKOFF: Final = 5.0
AWAY: Final = 1.0  #: seconds between two looks of a waiter while the database is away, or everybody asks at once

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


async def until_over(polls: Polls, changes: Changes, tenant_id: UUID, uuid: UUID, seconds: float) -> Job:
    """The job when it is over, or as it is after ``seconds``.

    While the database is away the wait goes on: the job is stored, and its worker waits as well.

    Raises:
        NotFound: no such job, or it was erased meanwhile.
        DatabaseUnavailable: the database is away, and there is no time left.
    """
    now = asyncio.get_running_loop().time
    end = now() + seconds
    with changes.watch(uuid) as changed:
        while True:
            changed.clear()
            try:
                job = await polls.read(tenant_id, uuid)
            except DatabaseUnavailable:
                if now() + AWAY >= end:
                    raise
                await asyncio.sleep(AWAY * random.uniform(0.5, 1.0))  # noqa: S311
                continue
            left = end - now()
            if job.status.is_final or left <= 0:
                return job
            await changes.pause(changed, left)
