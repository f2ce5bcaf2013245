"""Previews of pictures that are being drawn: in Valkey for two minutes, never in Postgres, never in a log.

They are a comfort, so nothing here raises: without the channel a job renders as it would have, seen by nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self
from uuid import UUID

import structlog
from pydantic import SecretStr
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError

LIFE: Final = 120  #: seconds after the last preview of a job
KEPT: Final = 40  #: previews of one job: ten pictures with three each, and some of an attempt before
CHANNEL_FAULTS: Final = (RedisError, OSError)
TIMEOUT: Final = 0.5  #: seconds for one exchange

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a picture would be if it were finished now; ``index`` counts the previews of picture ``n`` from 0."""

    attempt: int
    n: int
    index: int
    step: int
    steps: int
    content_type: str
    body: bytes

    def fields(self) -> dict[Any, Any]:
        """As Valkey keeps it."""
        numbers = {name: getattr(self, name) for name in ("attempt", "n", "index", "step", "steps")}
        return {**numbers, "content_type": self.content_type, "body": self.body}

    @classmethod
    def read(cls, fields: dict[bytes, bytes]) -> Self:
        """From what Valkey kept."""
        numbers = {name: int(fields[name.encode()]) for name in ("attempt", "n", "index", "step", "steps")}
        return cls(**numbers, content_type=fields[b"content_type"].decode(), body=fields[b"body"])


class Previews:
    """The channel; safe to share between threads."""

    def __init__(self, url: SecretStr) -> None:
        """Connects on the first use."""
        self._url = url.get_secret_value()
        self._redis = Redis.from_url(self._url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)

    def put(self, uuid: UUID, preview: Preview) -> None:
        """Show a preview to who follows the job now or in the next two minutes."""
        with _silently("preview_not_sent", uuid), self._redis.pipeline(transaction=False) as pipe:
            pipe.xadd(_key(uuid), preview.fields(), maxlen=KEPT)
            pipe.expire(_key(uuid), LIFE)
            pipe.execute()

    def forget(self, *uuids: UUID) -> None:
        """The jobs were erased; what this cannot delete is gone in two minutes."""
        if uuids:
            with _silently("previews_not_forgotten", uuids[0]):
                self._redis.delete(*map(_key, uuids))

    def reader(self, uuid: UUID) -> PreviewReader:
        """Reads the previews of a job on the event loop."""
        return PreviewReader(self._url, uuid)

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()


class PreviewReader:
    """One place in the previews of one job, from the oldest that is still there."""

    def __init__(self, url: str, uuid: UUID) -> None:
        self._redis = AsyncRedis.from_url(url, socket_connect_timeout=TIMEOUT)
        self._uuid = uuid
        self._last = "0"

    async def read(self, seconds: float) -> list[Preview] | None:
        """Those that are new, as soon as there are some; after ``seconds`` none (0: at once). None: no channel."""
        block = max(1, round(1000 * seconds)) if seconds else None
        try:
            async with asyncio.timeout(seconds + TIMEOUT):
                found: Any = await self._redis.xread({_key(self._uuid): self._last}, block=block)
        except CHANNEL_FAULTS:
            return None
        entries = [entry for _, some in found for entry in some]
        if entries:
            self._last = entries[-1][0]
        return [Preview.read(fields) for _, fields in entries]

    async def close(self) -> None:
        """Give the connection back."""
        with _silently("previews_not_closed", self._uuid):
            await self._redis.aclose()


def _key(uuid: UUID) -> str:
    return f"preview:{uuid}"


@contextmanager
def _silently(event: str, uuid: UUID) -> Iterator[None]:
    try:
        yield
    except CHANNEL_FAULTS as error:
        log.info(event, job=str(uuid), error=type(error).__name__)
