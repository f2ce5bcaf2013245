"""fal's public keys: fetched when they are first needed, kept for a day, looked at anew at most once a minute."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fluxfarm.errors import UnreachableUrl
from fluxfarm.inbound import FAL_JWKS, JWKS_SECONDS, read_jwks
from fluxfarm.outbound import fetch

LARGEST: Final = 64 * 1024  #: bytes
SECONDS: Final = 5.0  #: for the whole fetch
PAUSE: Final = 60.0  #: seconds between two fetches, whatever strangers send

Get = Callable[[], bytes]


def fetch_jwks() -> bytes:
    """The document as fal serves it."""
    return fetch(FAL_JWKS, limit_bytes=LARGEST, deadline_seconds=SECONDS).body


class Jwks:
    """Shared by the threads of a process."""

    def __init__(self, get: Get = fetch_jwks) -> None:
        """``get`` is the seam for tests."""
        self._get = get
        self._lock = threading.Lock()
        self._keys: tuple[Ed25519PublicKey, ...] = ()
        self._asked_at = -JWKS_SECONDS

    def keys(self, *, fresh: bool) -> tuple[Ed25519PublicKey, ...]:
        """The keys; ``fresh``: a signature fitted none of those that are known, which any stranger can bring about.

        Raises:
            UnreachableUrl: they cannot be fetched, and none are known.
            ForbiddenUrl: fal's name leads to a private address.
        """
        with self._lock:
            age = time.monotonic() - self._asked_at
            if age > JWKS_SECONDS or (fresh and age > PAUSE):
                self._asked_at = time.monotonic()
                self._keys = self._read() or self._keys
            if not self._keys:
                raise UnreachableUrl("fal's keys could not be fetched.")
            return self._keys

    def _read(self) -> tuple[Ed25519PublicKey, ...]:
        try:
            return read_jwks(json.loads(self._get()))
        except (ValueError, UnreachableUrl):
            return ()
