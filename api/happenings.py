"""What happens to a job, as it happens: for event streams, which sleep on the loop like all that waits."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi.concurrency import run_in_threadpool

from api.farm import Farm
from fluxfarm.errors import DatabaseUnavailable, NotFound
from fluxfarm.jobs import JobState
from storage.previews import Preview, PreviewReader
from storage.records import Job
from storage.repository import events, jobs

HEARTBEAT: Final = 15.0  #: seconds of silence after which a stream says that it lives
PREVIEW: Final = "preview"
STILL_HERE: Final = b": still here\n\n"
READ: Final = 10.0  #: seconds that one look for previews may take
PAUSE: Final = 2.0  #: seconds until the next look when there is no channel


@dataclass(frozen=True, slots=True)
class Happening:
    """One event; ``id`` is None for a preview, which is not kept and cannot be asked for again."""

    id: int | None
    kind: str
    payload: dict[str, Any] = field(default_factory=dict)
    preview: Preview | None = None


async def happenings(farm: Farm, job: Job, last_id: int) -> AsyncIterator[Happening | None]:
    """Events after ``last_id`` until the job is over or erased, previews if it asked for some; None: silence so long.

    Without the database or the channel of previews the stream waits for them.
    """
    now = asyncio.get_running_loop().time
    spoke = now()
    with farm.changes.watch(job.uuid) as changed:
        async with _previews(farm, job, changed) as previews:
            while True:
                changed.clear()
                try:
                    state, fresh = await run_in_threadpool(_read, farm, job, last_id)
                except NotFound:
                    return
                except DatabaseUnavailable:
                    state, fresh = None, []
                over = state is not None and state.is_final
                for happening in (*await previews.take(all_of_them=over), *fresh):
                    last_id = last_id if happening.id is None else happening.id
                    yield happening
                    spoke = now()
                if over:
                    return
                if now() - spoke >= HEARTBEAT:
                    yield None
                    spoke = now()
                await farm.changes.pause(changed, max(0.1, spoke + HEARTBEAT - now()))


async def event_stream(farm: Farm, job: Job, last_id: int | None) -> AsyncIterator[bytes]:
    """Server-sent events after ``last_id``; None: from the beginning.

    The acceptance has no row of its own: event 0 says QUEUED.
    """
    if last_id is None:
        yield _event(Happening(0, "status", {"status": JobState.QUEUED.value}))
    async for happening in happenings(farm, job, last_id or 0):
        yield STILL_HERE if happening is None else _event(happening)


def _event(happening: Happening) -> bytes:
    number = "" if happening.id is None else f"id: {happening.id}\n"
    return f"{number}event: {happening.kind}\ndata: {json.dumps(happening.payload)}\n\n".encode()


class _Previews:
    """What the reader has found and the stream has not shown."""

    def __init__(self, reader: PreviewReader | None) -> None:
        self._reader = reader
        self._found: list[Preview] = []
        self._looking: asyncio.Task[None] | None = None

    def look(self, changed: asyncio.Event) -> None:
        """Look from now on, and wake the stream for each that comes."""
        if self._reader is not None:
            self._looking = asyncio.create_task(self._look(self._reader, changed))

    async def _look(self, reader: PreviewReader, changed: asyncio.Event) -> None:
        while True:
            found = await reader.read(READ)
            if found:
                self._found += found
                changed.set()
            elif found is None:
                await asyncio.sleep(PAUSE)

    async def take(self, *, all_of_them: bool) -> list[Happening]:
        """Those that have come; once the job is over, what still lies there as well."""
        if all_of_them and self._reader is not None:
            await self.stop()
            self._found += await self._reader.read(0) or ()
        found, self._found = self._found, []
        return [Happening(None, PREVIEW, _shown(preview), preview) for preview in found]

    async def stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
            self._looking = None


@asynccontextmanager
async def _previews(farm: Farm, job: Job, changed: asyncio.Event) -> AsyncIterator[_Previews]:
    reader = farm.previews.reader(job.uuid) if job.render_request.previews else None
    previews = _Previews(reader)
    previews.look(changed)
    try:
        yield previews
    finally:
        await previews.stop()
        if reader is not None:
            await reader.close()


def _shown(preview: Preview) -> dict[str, Any]:
    return {
        "n": preview.n,
        "index": preview.index,
        "step": preview.step,
        "steps": preview.steps,
        "contentType": preview.content_type,
        "image": base64.b64encode(preview.body).decode(),
    }


def _read(farm: Farm, job: Job, last_id: int) -> tuple[JobState, list[Happening]]:
    with farm.database.transaction() as session:
        # First: the event of a state is committed together with it.
        state = jobs.status(session, job.tenant_id, job.uuid)
        found = events.since(session, job.uuid, last_id)
        return state, [Happening(event.id, event.kind, event.payload) for event in found]
