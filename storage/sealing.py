"""Secrets that the farm must be able to read again, such as those that sign webhooks: encrypted at rest.

Fernet (AES-128-CBC with HMAC-SHA256) under keys that follow from ``FLUXFARM_SECRET_KEY``; a copy of the database alone
opens nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final, Self

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from fluxfarm.errors import InternalError
from fluxfarm.settings import Settings
from storage.folder_secrets import kept_secret

MIN_KEY: Final = 16  #: characters


class Sealer:
    """Seals with the first key and opens with each, so that a key can be replaced without a gap."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Any text of at least 16 characters is a key.

        Raises:
            InternalError: there is none, or one is too short.
        """
        if not keys or any(len(key) < MIN_KEY for key in keys):
            raise InternalError(f"FLUXFARM_SECRET_KEY needs at least {MIN_KEY} characters.")
        self._fernet = MultiFernet([Fernet(_derived(key)) for key in keys])
        self._keys = tuple(key.encode() for key in keys)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Keys from ``FLUXFARM_SECRET_KEY`` (``new,old`` while it is changed), else from the data folder.

        Raises:
            InternalError: a key is too short.
            StoreUnavailable: the data folder cannot be used.
        """
        text = settings.secret_key.get_secret_value() or kept_secret(settings.data_dir / "sealing.secret")
        return cls(re.split(r"[\s,]+", text.strip()))

    def seal(self, text: str) -> str:
        """The text, unreadable without the key."""
        return self._fernet.encrypt(text.encode()).decode("ascii")

    def open(self, sealed: str) -> str:
        """What was sealed.

        Raises:
            InternalError: it was sealed with a key that this process does not have.
        """
        try:
            return self._fernet.decrypt(sealed).decode()
        except InvalidToken:
            raise InternalError("A stored secret was sealed with another FLUXFARM_SECRET_KEY.") from None

    def derive(self, purpose: str) -> list[bytes]:
        """32 secret bytes for this purpose from each key, the first one's first; the same after every restart."""
        message = f"fluxfarm-derived-1\n{purpose}".encode()
        return [hmac.new(key, message, hashlib.sha256).digest() for key in self._keys]


def _derived(key: str) -> bytes:
    return base64.urlsafe_b64encode(hashlib.sha256(b"fluxfarm-sealing-1\n" + key.encode()).digest())
