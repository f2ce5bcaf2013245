"""Server-sent events: from the bytes of a stream to what happened to a job."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from fluxfarm.airecord import Progress
from fluxfarm.errors import Unavailable
from fluxfarm.jobs import JobState

MAX_LINE: Final = 8 * 2**20  #: bytes; a preview picture travels in one line

# Not str.splitlines(): it also breaks at U+2028 and its like, which may stand inside a JSON string.
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event of a job: ``kind`` is ``status``, ``progress`` or another word, ``data`` its JSON object."""

    id: str  #: give it as ``last_event_id`` to go on after this event
    kind: str
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> JobState | None:
        """The new state, when this event tells one."""
        word = self.data.get("status")
        return JobState(word) if self.kind == "status" and word in list(JobState) else None

    @property
    def progress(self) -> Progress | None:
        """Steps done and in all, when this event tells them."""
        step, steps = self.data.get("step"), self.data.get("steps")
        if self.kind == "progress" and isinstance(step, int) and isinstance(steps, int):
            return Progress(step=step, steps=steps)
        return None

    @property
    def is_last(self) -> bool:
        """True when the job has reached a final state."""
        return self.status is not None and self.status.is_final


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Whole lines without their ends; a line that the stream broke off is dropped, as the standard demands.

    Raises:
        Unavailable: a line without end.
    """
    rest = b""
    for chunk in chunks:
        rest += chunk
        # A CR at the very end may be half of a CRLF: it waits for the next chunk.
        cut = len(rest) - 1 if rest.endswith(b"\r") else len(rest)
        start = 0
        for end in _LINE_END.finditer(rest, 0, cut):
            yield rest[start : end.start()].decode(errors="replace")
            start = end.end()
        rest = rest[start:]
        if len(rest) > MAX_LINE:
            raise Unavailable("The event stream sent a line without end.")


def parse(chunks: Iterable[bytes]) -> Iterator[JobEvent]:
    """The events of a stream (WHATWG, server-sent events); comments and data that is no JSON object are skipped."""
    last_id, kind, data = "", "message", list[str]()
    for line in lines(chunks):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            content = _json_object("\n".join(data))
            if content is not None:
                yield JobEvent(last_id, kind, content)
            kind, data = "message", []
        elif name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
