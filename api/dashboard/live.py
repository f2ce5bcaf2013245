"""Parts of a page that move: sent as HTML whenever they changed, made by the templates that made the page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from fluxfarm.errors import DatabaseUnavailable, FluxfarmError, NotFound

LOOK: Final = 1.0  #: seconds between two looks
SILENCE: Final = 15  #: looks without a change after which a stream says that it lives
EVENT_STREAM: Final = "text/event-stream"

Read = Callable[[], Mapping[str, str]]


async def parts(read: Read) -> StreamingResponse:
    """A stream of what ``read`` gives: elements by their ids; whoever comes back is sent everything once more.

    Raises:
        FluxfarmError: it cannot be read at all, which is told before the stream begins.
    """
    first = await run_in_threadpool(read)
    return StreamingResponse(_stream(read, first), media_type=EVENT_STREAM, headers={"X-Accel-Buffering": "no"})


async def _stream(read: Read, fresh: Mapping[str, str]) -> AsyncIterator[bytes]:
    shown: Mapping[str, str] = {}
    quiet = 0
    troubled = False
    while True:
        changed = {name: body for name, body in fresh.items() if shown.get(name) != body}
        for name, body in changed.items():
            yield _event("part", {"id": name, "html": body})
        quiet = 0 if changed else quiet + 1
        if quiet >= SILENCE:
            yield _event("alive", quiet)
            quiet = 0
        shown = fresh
        await asyncio.sleep(LOOK)
        try:
            fresh = await run_in_threadpool(read)
            if troubled:
                yield _event("fine", None)
            troubled = False
        except DatabaseUnavailable:
            yield _event("trouble", "The database does not answer; the page goes on when it does.")
            troubled = True
        except NotFound as error:
            yield _event("over", error.message)
            return
        except FluxfarmError:
            yield _event("over", "The session is over; log in again.")
            return


def _event(kind: str, told: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(told)}\n\n".encode()
