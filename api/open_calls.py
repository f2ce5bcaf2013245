"""How many calls of each key are open: counted here, and told to the farm's other processes once a second by Valkey.

A call costs no round trip. Within one process the limit is exact; what is open elsewhere is known as it was a second
ago. While Valkey is away each process counts alone.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import suppress
from typing import Final
from uuid import uuid4

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from fluxfarm.errors import TooManyRequests
from fluxfarm.settings import Settings

POLICY: Final = "open-calls"  #: the limit's name in ``violated-policies``
ROUND: Final = 1.0  #: seconds between two rounds
LIFE: Final = 5  #: seconds after which a process that says nothing has no open calls
PATIENCE: Final = 0.5  #: seconds that Valkey may take
RETRY_AFTER: Final = 1.0  #: seconds
PROCESSES: Final = "fluxfarm:open"

log = structlog.get_logger()


class OpenCalls:
    """The counts of one process, and what it knows of the others."""

    def __init__(self, settings: Settings) -> None:
        """Connects with the first round."""
        self._most = settings.open_calls or None
        self._here: Counter[str] = Counter()
        self._elsewhere: Counter[str] = Counter()
        self._name = f"{PROCESSES}:{uuid4()}"
        url = settings.redis_url.get_secret_value()
        self._redis = Redis.from_url(
            url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE, decode_responses=True
        )
        self._away = False
        self._over = asyncio.Event()

    def enter(self, digest: bytes) -> str:
        """Count a call that begins; ``leave`` takes what this gives.

        Raises:
            TooManyRequests: as many as may be are open.
        """
        key = digest.hex()[:32]
        if self._most is not None and self._here[key] + self._elsewhere[key] >= self._most:
            message = f"{self._most} calls of this key are open, as many as may be; wait until one of them is answered."
            error = TooManyRequests(message, retry_after=RETRY_AFTER)
            error.policy = POLICY
            raise error
        self._here[key] += 1
        return key

    def leave(self, key: str) -> None:
        """The call is over."""
        self._here[key] -= 1
        if self._here[key] <= 0:
            del self._here[key]

    async def share(self) -> None:
        """Runs until ``close``: tells what is open here, and learns what is open elsewhere.

        An idle process does so, too: its first call must know of the others'. No error ends it, as nothing would begin
        it again. It is not to be cancelled: a client of Valkey that is cancelled while it connects leaves its
        connection behind.
        """
        try:
            while not self._over.is_set():
                await self._round()
                with suppress(TimeoutError):
                    async with asyncio.timeout(ROUND):
                        await self._over.wait()
        finally:
            await self._redis.aclose()

    def close(self) -> None:
        """End ``share`` after the round that it is in."""
        self._over.set()

    async def _round(self) -> None:
        try:
            self._elsewhere = await self._exchange()
        except Exception as error:
            self._elsewhere = Counter()
            if not self._away:
                is_away = isinstance(error, RedisError | OSError)
                log.warning("open_calls_not_shared", error=type(error).__name__, exc_info=not is_away)
            self._away = True
        else:
            self._away = False

    async def _exchange(self) -> Counter[str]:
        """Tell the others; what they have told."""
        await self._redis.set(self._name, json.dumps(self._here), ex=LIFE)
        await self._redis.sadd(PROCESSES, self._name)
        others = await self._redis.smembers(PROCESSES) - {self._name}
        counts = dict(zip(others, await self._redis.mget(*others) if others else (), strict=True))
        if gone := [name for name, found in counts.items() if found is None]:
            await self._redis.srem(PROCESSES, *gone)
        return sum((Counter(json.loads(found)) for found in counts.values() if found), Counter())
