"""How often a key may call: the tokens of a minute, taken from Valkey in small lots and spent here.

A lot is a hundredth of what is left: a busy key costs one round trip in many calls, several processes together never
let more through than the quota, and near its end the count is exact. While Valkey is away nothing is counted and every
call passes: a job must be accepted without the broker, and what may be spent is guarded by the record
(docs/decisions/0013).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

import structlog
from fastapi.concurrency import run_in_threadpool
from limits.errors import StorageError
from limits.storage import RedisStorage
from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.retry import Retry

from fluxfarm.errors import TooManyRequests
from fluxfarm.settings import Settings
from storage.database import Database
from storage.repository import tenants

POLICY: Final = TooManyRequests.policy
WINDOW: Final = 60  #: seconds of a window; they begin with the minutes of the clock
SHARE: Final = 100  #: what is left is taken in so many lots
MOST: Final = 200  #: tokens in a lot
PATIENCE: Final = 0.25  #: seconds that Valkey may take
PAUSE: Final = 2.0  #: seconds without another try when it did not answer

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Standing:
    """What is left to a key after a call, which does not count when the minute ``is_over``."""

    quota: int
    left: int
    reset: int  #: seconds until the next minute
    is_over: bool

    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers-10 has them."""
        return {
            "RateLimit-Policy": f'"{POLICY}";q={self.quota};w={WINDOW}',
            "RateLimit": f'"{POLICY}";r={self.left};t={self.reset}',
        }

    def check(self) -> None:
        """Refuse the call when its minute is used up.

        Raises:
            TooManyRequests: try again when the next one begins.
        """
        if self.is_over:
            message = (
                f"This key may call {self.quota} times a minute, and did; the next minute begins in {self.reset} s."
            )
            raise TooManyRequests(message, retry_after=self.reset)


@dataclass(slots=True)
class _Window:
    """A key within one minute: ``taken`` of its quota are out, ``lot`` of them here and not yet spent."""

    quota: int | None  #: None: no limit
    taken: int = 0
    lot: int = 0
    lock: Lock = field(default_factory=Lock)

    def is_empty(self) -> bool:
        """Whether a new lot is needed, and can be had."""
        return not self.lot and not self.is_over()

    def is_over(self) -> bool:
        """Whether the quota is used up."""
        return self.quota is not None and self.taken >= self.quota and not self.lot


class Rates:
    """The quotas of all keys, as one process of the API sees them."""

    def __init__(self, settings: Settings, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Connects on the first call."""
        self._usual = settings.rate_limit or None
        self._database = database
        self._clock = clock
        url = settings.redis_url.get_secret_value()
        self._pool = ConnectionPool.from_url(
            url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE, retry=Retry(NoBackoff(), 0)
        )
        self._storage = RedisStorage(url, self._pool, key_prefix="fluxfarm:rate", wrap_exceptions=True)
        self._windows: dict[bytes, _Window] = {}
        self._minute = 0.0
        self._away_until = 0.0

    async def spend(self, digest: bytes) -> Standing | None:
        """Count one call of the key; None: it has no limit, is unknown, or Valkey is away.

        Raises:
            DatabaseUnavailable: the quota of a key is read once a minute.
        """
        minute, passed = divmod(self._clock(), WINDOW)
        if minute != self._minute:
            self._minute, self._windows = minute, {}
        window = self._windows.get(digest)
        if window is None:
            window = _Window(await run_in_threadpool(self._read_quota, digest))
            window = self._windows.setdefault(digest, window)
        if window.quota is None or not await self._filled(window, f"{digest.hex()[:32]}:{minute:.0f}"):
            return None
        is_over = window.is_over()
        window.lot -= not is_over
        left = window.quota - window.taken + window.lot
        return Standing(window.quota, left, math.ceil(WINDOW - passed), is_over)

    async def _filled(self, window: _Window, name: str) -> bool:
        """Whether the window is counted now; its lot is empty only when the quota is used up."""
        while window.is_empty():
            if not await run_in_threadpool(self._fill, window, name):
                return False
        return True

    def _fill(self, window: _Window, name: str) -> bool:
        with window.lock:
            return not window.is_empty() or self._take_lot(window, name)

    def _take_lot(self, window: _Window, name: str) -> bool:
        if time.monotonic() < self._away_until:
            return False
        assert window.quota is not None
        wanted = min(MOST, max(1, (window.quota - window.taken) // SHARE))
        try:
            taken = self._storage.incr(name, 2 * WINDOW, wanted)
        except (StorageError, OSError) as error:
            self._away_until = time.monotonic() + PAUSE
            log.warning("rates_not_counted", error=type(error.__cause__ or error).__name__)
            return False
        window.lot = max(0, wanted - max(0, taken - window.quota))
        window.taken = min(taken, window.quota)
        return True

    def _read_quota(self, digest: bytes) -> int | None:
        with self._database.transaction() as session:
            return tenants.rate_limit(session, digest, self._usual)

    def close(self) -> None:
        """Give the connections back."""
        self._pool.disconnect()
