"""The ``Idempotency-Key`` of a call: how it is read, and what it stands for.

After draft-ietf-httpapi-idempotency-key-header-07 and Stripe: one key, one call, one job, per tenant. A replay
shows the job as it is now under the status of the first reply; no body is kept, so that no prompt outlives its job.
``api.creation`` does the same for calls that make other things.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final
from uuid import UUID

import structlog
from fastapi import Depends, Header, Request

from api.auth import Secret
from api.farm import Farm
from fluxfarm.errors import DatabaseUnavailable, InvalidIdempotencyKey
from storage.repository import idempotency
from storage.repository.idempotency import Taken

MAX_KEY: Final = 255
REPEATS_TTL: Final = 1_800.0  #: seconds; OpenAI's clients wait 600 for each of three tries
REPLAYED: Final = "Idempotency-Replayed"
_KEY: Final = re.compile(rf"[\x21-\x7e]{{1,{MAX_KEY}}}")
_QUOTED: Final = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')  #: RFC 9651, a String
#: the same for the description; the first character of a bare key is no quotation mark
_PATTERN: Final = rf'^([!#-~][!-~]{{0,{MAX_KEY - 1}}}|"[!#-\[\]-~]{{1,{MAX_KEY}}}")$'
_DESCRIPTION: Final = (
    "A word of yours for this call, 1 to 255 visible ASCII characters, bare or as a quoted string. The same call with "
    "the same key within 24 hours makes nothing twice: the reply shows what the first one made, with "
    "`Idempotency-Replayed: true`. Another call with the key is a 422; while the first is worked on, a 409 with "
    "`Retry-After`."
)

log = structlog.get_logger()


def parse_key(values: list[str]) -> str | None:
    """The key in the header's lines; quoted and bare it is the same one. None: there is no such header.

    Raises:
        InvalidIdempotencyKey: two lines, empty, too long, or characters that are not visible ASCII.
    """
    if not values:
        return None
    text = values[0].strip(" \t")
    if text.startswith('"'):
        quoted = _QUOTED.fullmatch(text)
        text = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else ""
    if len(values) > 1 or not _KEY.fullmatch(text):
        message = f"Idempotency-Key must be one word of 1 to {MAX_KEY} visible ASCII characters, a UUID for one."
        raise InvalidIdempotencyKey(message)
    return text


async def read_key(
    request: Request,
    _key_first: Secret,
    _documented: Annotated[
        str | None, Header(alias="Idempotency-Key", description=_DESCRIPTION, json_schema_extra={"pattern": _PATTERN})
    ] = None,
) -> str | None:
    """The key of this call, as a dependency."""
    return parse_key(request.headers.getlist("idempotency-key"))


IdempotencyKey = Annotated[str | None, Depends(read_key)]


def digest(path: str, body: dict[str, Any] | None = None) -> bytes:
    """What tells two calls apart: the path and the parsed body, whose spaces and order of names mean nothing."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{path}\n{canonical}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Guard:
    """A key and the call that came with it; ``digest`` is taken once the caller is known, as it parses the body."""

    key: str
    digest: Callable[[], bytes]

    @classmethod
    def of(cls, key: str | None, call: Callable[[], bytes]) -> Guard | None:
        """None without a key."""
        return None if key is None else cls(key, call)

    def call(self, tenant_id: UUID, holder: UUID) -> Taken:
        """This call, as the repository has it."""
        return Taken(tenant_id=tenant_id, key=self.key, digest=self.digest(), holder=holder)


@dataclass(frozen=True, slots=True)
class Repeats(Guard):
    """Of a client that names no key but says which try a call is: a later try leads to the job of the last first one.

    Two first tries are two jobs, however alike they are.
    """

    is_first: bool = True

    @classmethod
    def told_by(cls, request: Request, secret: str, call: Callable[[], bytes]) -> Repeats | None:
        """None for a client that says nothing."""
        tries = request.headers.get("x-stainless-retry-count", "")
        if not tries.isdecimal():
            return None
        # With a space: no key that a caller can send is like it.
        return cls(f"retry {hashlib.sha256(secret.encode()).hexdigest()[:32]} ", call, is_first=int(tries[:9]) == 0)

    def call(self, tenant_id: UUID, holder: UUID) -> Taken:
        """This call, under a key made of itself."""
        digest = self.digest()
        key = self.key + digest.hex()
        return Taken(
            tenant_id=tenant_id, key=key, digest=digest, holder=holder, is_first=self.is_first, ttl=REPEATS_TTL
        )


def guarded(request: Request, secret: str, key: str | None, call: Callable[[], bytes]) -> Guard | None:
    """By the caller's own key, else by what a client without one says of its tries; None: it says nothing."""
    return Guard.of(key, call) or Repeats.told_by(request, secret, call)


@contextmanager
def released_on_failure(farm: Farm, call: Taken | None) -> Iterator[None]:
    """Gives the key up when what is done between two transactions fails: then nothing was stored."""
    try:
        yield
    except BaseException:
        if call is not None:
            release(farm, call)
        raise


def release(farm: Farm, call: Taken) -> None:
    """Give the key of a call up that made nothing."""
    try:
        with farm.database.transaction() as session:
            idempotency.release(session, call)
    except DatabaseUnavailable:
        farm.releases.add(call)
        log.warning("idempotency_key_held", at_most=idempotency.IN_FLIGHT)
