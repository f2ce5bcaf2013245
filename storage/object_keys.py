"""What objects are called: the names keep tenants, jobs and attempts apart, and nobody can guess one."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from uuid import UUID

from fluxfarm.errors import InternalError, NotFound

RANDOM_BYTES: Final = 16  #: 128 bits in every key, in hex, for file systems that do not tell ``a`` from ``A``
MAX_TTL: Final = 604_800  #: seconds; SigV4 allows no more than seven days

CONTENT_TYPES: Final = MappingProxyType(
    {
        "avif": "image/avif",
        "gif": "image/gif",
        "jpeg": "image/jpeg",
        "jpg": "image/jpeg",
        "png": "image/png",
        "webp": "image/webp",
    }
)

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_SEGMENT = "[0-9a-z][0-9a-z-]{0,99}"
_KEY: Final = re.compile(rf"t/{_UUID}(?:/{_SEGMENT}){{1,4}}\.(?P<extension>{'|'.join(CONTENT_TYPES)})")
_TENANT_PREFIX: Final = re.compile(rf"t/{_UUID}/(?:{_SEGMENT}/){{0,3}}")
_ALL: Final = "t/"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a store tells of an object without reading it; ``size`` is in bytes."""

    key: str
    size: int
    content_type: str


def tenant_prefix(tenant_id: UUID) -> str:
    """All that a tenant has stored."""
    return f"t/{tenant_id}/"


def job_prefix(tenant_id: UUID, job: UUID) -> str:
    """The results of all attempts of a job: what an erasure deletes."""
    return f"t/{tenant_id}/{job}/"


def attempt_prefix(tenant_id: UUID, job: UUID, attempt: int) -> str:
    """The one place where an attempt writes: what is swept when the attempt loses."""
    return f"t/{tenant_id}/{job}/{attempt}/"


def object_key(tenant_id: UUID, job: UUID, attempt: int, n: int, extension: str) -> str:
    """A fresh key for image ``n`` of an attempt; two calls never give the same one."""
    name = f"{n}-{secrets.token_hex(RANDOM_BYTES)}.{extension}"
    return _checked(attempt_prefix(tenant_id, job, attempt) + name)


def reference_key(tenant_id: UUID, extension: str = "png") -> str:
    """A fresh key for an uploaded reference image."""
    return _checked(f"t/{tenant_id}/references/{secrets.token_hex(RANDOM_BYTES)}.{extension}")


def content_type_of(key: str) -> str:
    """The type that a key's extension stands for; ``NotFound`` when it is no key of ours.

    Stores call this before anything else, so that a hostile name (``../``, NUL, an absolute path) is just a name
    that does not exist.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise NotFound("There is no such object.")
    return CONTENT_TYPES[match["extension"]]


def check_put(key: str, content_type: str) -> None:
    """Refuses to write what could not be read back: a foreign name, or a type that the extension does not stand for.

    Raises:
        InternalError: keys are made here, never by a caller, so this is a fault of the farm.
    """
    if content_type_of(_checked(key)) != content_type:
        raise InternalError("The content type and the extension of an object do not agree.")


def check_prefix(prefix: str, *, whole_store: bool) -> str:
    """Lets only whole folders through: ``…/1`` would also name ``…/10``, and an empty prefix everything.

    Raises:
        InternalError: the prefix was not made by this module.
    """
    if _TENANT_PREFIX.fullmatch(prefix) is None and not (whole_store and prefix == _ALL):
        raise InternalError("The prefix of objects is not a folder of the store.")
    return prefix


def check_ttl(ttl: int) -> int:
    """Seconds that a link may live: 1 to 604800; ``InternalError`` outside."""
    if not 1 <= ttl <= MAX_TTL:
        raise InternalError(f"A link lives 1 to {MAX_TTL} seconds.")
    return ttl


def _checked(key: str) -> str:
    if _KEY.fullmatch(key) is None:
        raise InternalError("The key of an object is malformed.")
    return key
