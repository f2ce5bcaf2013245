"""The gate before each provider's account, shared by all workers through Valkey: circuit breaker, slots, pace.

The breaker opens for 30 s when half of at least ten calls within 30 s failed; then one call may probe, and its end
closes or opens it again. An account that was refused (key, credit, quota) opens it at once and for longer. Without
Valkey every gate is open: a call too many is refused by the provider, a call too few would stop the farm.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

import structlog
from redis import Redis
from redis.exceptions import RedisError

from fluxfarm.settings import Settings

TIMEOUT: Final = 0.5  #: seconds that Valkey may take
PAUSE_AFTER_FAILURE: Final = 1.0  #: seconds without another try
WINDOW: Final = 30.0  #: seconds of calls that count
FEWEST: Final = 10  #: calls before the breaker may open
OPEN: Final = 30.0  #: seconds
PROBE: Final = 60.0  #: seconds that a probe may take before another one is let through
ACCOUNT_OPEN: Final = 900.0  #: seconds for a refused account, unless the provider says when it is good again
SLOT_LEASE: Final = 30.0  #: seconds that a slot is held without a sign of life

ADMIT: Final = """
local open = redis.call('PTTL', KEYS[1])
if open > 0 then return {0, open, redis.call('GET', KEYS[1])} end
if redis.call('EXISTS', KEYS[2]) == 1 and not redis.call('SET', KEYS[3], '1', 'NX', 'PX', ARGV[1]) then
  return {0, redis.call('PTTL', KEYS[3]), 'one call probes whether it works again'}
end
return {1, 0, ''}
"""
REPORT: Final = """
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local ok = ARGV[1] == '1'
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('DEL', KEYS[3])
  if ok then redis.call('DEL', KEYS[1], KEYS[2], KEYS[4])
  else redis.call('SET', KEYS[1], ARGV[5], 'PX', ARGV[4]) end
  return 0
end
redis.call('ZADD', KEYS[4], ms, ARGV[2] .. ':' .. ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', ms - ARGV[3])
redis.call('PEXPIRE', KEYS[4], ARGV[3])
local calls = redis.call('ZRANGE', KEYS[4], 0, -1)
local failed = 0
for _, call in ipairs(calls) do if string.sub(call, -1) == '0' then failed = failed + 1 end end
if #calls >= tonumber(ARGV[6]) and failed * 2 >= #calls then
  redis.call('SET', KEYS[1], ARGV[5], 'PX', ARGV[4])
  redis.call('SET', KEYS[2], '1', 'PX', 3600000)
  redis.call('DEL', KEYS[4])
  return 1
end
return 0
"""
ENTER: Final = """
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ms)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], ms + ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
PACE: Final = """
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('EXPIRE', KEYS[1], 61) end
return count
"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Gate:
    """The gate of one account at one provider."""

    provider: str
    account: str

    def key(self, what: str) -> str:
        """The name of one of its parts at Valkey; the braces keep them on one node of a cluster."""
        return f"fluxfarm:gate:{{{self.provider}:{self.account}}}:{what}"

    @property
    def breaker(self) -> list[str]:
        """Open, tripped, probing, calls."""
        return [self.key(what) for what in ("open", "tripped", "probe", "calls")]


@dataclass(frozen=True, slots=True)
class Breaker:
    """How a breaker stands: ``closed``, ``open`` or ``half-open``; ``seconds`` are left of an open one."""

    state: str = "closed"
    reason: str = ""
    seconds: float = 0.0


class Gates:
    """Asks and tells Valkey; no call raises, and none takes long."""

    def __init__(self, settings: Settings) -> None:
        """Connects on the first call."""
        url = settings.redis_url.get_secret_value()
        self._redis = Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, decode_responses=True)
        self._down_until = 0.0

    def admit(self, gate: Gate) -> Breaker:
        """Whether a call may be made now; of a half-open breaker the one probe is admitted."""
        found = self._run(ADMIT, gate.breaker[:3], [_ms(PROBE)])
        if found is None or found[0]:
            return Breaker()
        return Breaker("open", str(found[2]), max(int(found[1]), 0) / 1000)

    def report(self, gate: Gate, *, good: bool, reason: str = "half of its calls failed") -> None:
        """A call ended; ``good``: the provider did its part, whatever it said of the request."""
        arguments = ["1" if good else "0", str(uuid4()), _ms(WINDOW), _ms(OPEN), reason, FEWEST]
        if self._run(REPORT, gate.breaker, arguments):
            log.warning("breaker_opened", provider=gate.provider, account=gate.account, reason=reason)

    def trip(self, gate: Gate, reason: str, seconds: float = ACCOUNT_OPEN) -> None:
        """Let nothing through for so long, then one probe."""
        log.warning("breaker_tripped", provider=gate.provider, account=gate.account, reason=reason, seconds=seconds)

        def write(redis: Redis) -> None:
            with redis.pipeline() as pipe:
                pipe.set(gate.key("open"), reason, px=_ms(seconds))
                pipe.set(gate.key("tripped"), "1", px=_ms(seconds + 3600))
                pipe.execute()

        self._ask(write)

    def reset(self, gate: Gate) -> None:
        """Somebody looked, or the key is another one: start afresh."""
        self._ask(lambda redis: redis.delete(*gate.breaker))

    def look(self, gates: Iterable[Gate]) -> Mapping[Gate, Breaker]:
        """How the breakers stand, in one round trip; nothing is changed."""
        asked = list(gates)

        def read(redis: Redis) -> list[Any]:
            with redis.pipeline(transaction=False) as pipe:
                for gate in asked:
                    pipe.pttl(gate.key("open"))
                    pipe.get(gate.key("open"))
                    pipe.exists(gate.key("tripped"))
                answers: list[Any] = pipe.execute()
            return answers

        found = self._ask(read) if asked else None
        if found is None:
            return {gate: Breaker() for gate in asked}
        return {gate: _breaker(*found[3 * n : 3 * n + 3]) for n, gate in enumerate(asked)}

    def enter(self, gate: Gate, holder: UUID, limit: int | None) -> bool:
        """Take one of ``limit`` slots, or keep it; a holder that falls silent loses it after 30 s."""
        if limit is None:
            return True
        return bool(self._run(ENTER, [gate.key("slots")], [str(holder), limit, _ms(SLOT_LEASE)]) != 0)

    def leave(self, gate: Gate, holder: UUID) -> None:
        """Give the slot back."""
        self._ask(lambda redis: redis.zrem(gate.key("slots"), str(holder)))

    def within_pace(self, gate: Gate, per_minute: int | None) -> bool:
        """Count a submit; False: it would be one too many in this minute."""
        if per_minute is None:
            return True
        count = self._run(PACE, [gate.key(f"minute:{int(time.time() // 60)}")], [])
        return count is None or int(count) <= per_minute

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()

    def _run(self, script: str, keys: list[str], arguments: list[Any]) -> Any:
        return self._ask(lambda redis: redis.eval(script, len(keys), *keys, *arguments))

    def _ask(self, call: Any) -> Any:
        if time.monotonic() < self._down_until:
            return None
        try:
            return call(self._redis)
        except (RedisError, OSError) as error:
            self._down_until = time.monotonic() + PAUSE_AFTER_FAILURE
            log.warning("gates_unavailable", error=type(error).__name__)
            return None


def _breaker(left: int, reason: str | None, tripped: int) -> Breaker:
    if left > 0:
        return Breaker("open", reason or "", left / 1000)
    return Breaker("half-open" if tripped else "closed")


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
