"""API keys: how they are made, recognised offline and stored as a digest only."""

from __future__ import annotations

import hashlib
import secrets
import string
import zlib
from typing import Final

PREFIX: Final = "ff_live_"
SECRET_LENGTH: Final = 30  #: 30 letters of 62 are 178 bits: a fast digest at rest is enough
CHECK_LENGTH: Final = 6  #: CRC-32 in base 62, so that a typing error costs no query (GitHub's token format)
SHOWN: Final = len(PREFIX) + 4

_LETTERS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    letters = ""
    for _ in range(CHECK_LENGTH):
        number, digit = divmod(number, len(_LETTERS))
        letters = _LETTERS[digit] + letters
    return letters


def make_key() -> str:
    """A new key; shown once, never stored."""
    body = "".join(secrets.choice(_LETTERS) for _ in range(SECRET_LENGTH))
    return PREFIX + body + _checksum(body)


def is_well_formed(key: str) -> bool:
    """Whether the key can be one of ours, by its form and checksum."""
    body = key[len(PREFIX) : -CHECK_LENGTH]
    return (
        key.isascii()
        and key.startswith(PREFIX)
        and len(body) == SECRET_LENGTH
        and key[-CHECK_LENGTH:] == _checksum(body)
    )


def digest(key: str) -> bytes:
    """SHA-256 of the key, as the database holds it."""
    return hashlib.sha256(key.encode()).digest()


def random_id(prefix: str) -> str:
    """An id that cannot be guessed: the prefix and 22 letters (131 bits)."""
    return prefix + "".join(secrets.choice(_LETTERS) for _ in range(22))
