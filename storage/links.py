"""Temporary links of the local store: whoever holds one may read one object until it expires, and nothing else."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from fluxfarm.errors import Forbidden, InternalError, LinkExpired
from fluxfarm.settings import Settings
from storage.folder_secrets import kept_secret

MIN_SECRET: Final = 16  #: characters
_FILENAME_LENGTH: Final = 120
_SIGNED: Final = ("expires", "type", "disposition", "kid")
_TYPE: Final = re.compile(r"[a-z]+/[a-z0-9.+-]+")


@dataclass(frozen=True, slots=True)
class SignedLink:
    """What a valid link grants; ``expires`` is in seconds since 1970."""

    key: str
    expires: int
    content_type: str
    disposition: str
    kid: str


class LinkSigner:
    """Signs with the current secret and accepts all of the ring, so that a secret can be replaced without a gap.

    HMAC-SHA256 over length-prefixed fields: joined without lengths, ``a/1`` until ``799`` and ``a/17`` until ``99``
    would have one signature.
    """

    def __init__(self, ring: Mapping[str, str], current: str, *, clock: Callable[[], float] = time.time) -> None:
        """``ring`` maps key ids to secrets, ``current`` is the id that signs."""
        if current not in ring:
            raise InternalError("The current key of the link signer is not in its ring.")
        self._ring = {kid: secret.encode() for kid, secret in ring.items()}
        self._current = current
        self._clock = clock

    @classmethod
    def of(cls, ring: Iterable[str], *, clock: Callable[[], float] = time.time) -> LinkSigner:
        """A signer whose key ids follow from the secrets; the first secret signs."""
        named = {_kid(secret): secret for secret in ring}
        if not named or any(len(secret) < MIN_SECRET for secret in named.values()):
            raise InternalError(f"A link secret (FLUXFARM_LINK_SECRET) needs at least {MIN_SECRET} characters.")
        return cls(named, next(iter(named)), clock=clock)

    def sign(self, key: str, *, ttl: int, content_type: str, disposition: str, method: str = "GET") -> dict[str, str]:
        """The query parameters of a link to ``key`` that lives ``ttl`` seconds."""
        if _TYPE.fullmatch(content_type) is None:
            raise InternalError("A link needs a plain content type.")
        params = {
            "expires": str(int(self._clock()) + ttl),
            "type": content_type,
            "disposition": disposition,
            "kid": self._current,
        }
        return {**params, "signature": _signature(self._ring[self._current], method, key, params)}

    def verify(self, key: str, params: Mapping[str, str], *, method: str = "GET") -> SignedLink:
        """What the link grants.

        Raises:
            Forbidden: a part is missing or was altered, or its secret has left the ring.
            LinkExpired: it was ours, and its time is over.
        """
        secret = self._ring.get(params.get("kid", ""))
        if secret is None:
            raise Forbidden("The link is not valid.")
        expected = _signature(secret, method, key, params)
        given = params.get("signature", "")
        if not hmac.compare_digest(expected.encode(), given.encode(errors="backslashreplace")):
            raise Forbidden("The link was altered.")
        expires = int(params["expires"])  # an integer: only what sign() wrote gets here
        if expires <= self._clock():
            raise LinkExpired("The link has expired; read the job again for a fresh one.")
        return SignedLink(key, expires, params["type"], params["disposition"], params["kid"])


def link_signer(settings: Settings) -> LinkSigner:
    """The farm's signer: secrets from ``FLUXFARM_LINK_SECRET`` (``new,old`` while rotating), else from the data folder.

    Raises:
        InternalError: a secret is too short.
        StoreUnavailable: the data folder cannot be used.
    """
    text = settings.link_secret.get_secret_value() or kept_secret(settings.data_dir / "link.secret")
    return LinkSigner.of(re.split(r"[\s,]+", text.strip()))


@lru_cache(maxsize=1024)  # who polls asks for the same name again and again
def content_disposition(filename: str | None, *, inline: bool) -> str:
    """The header that says how a browser saves the file, in ASCII only (RFC 6266, RFC 5987).

    Control, bidirectional and path characters are taken out of the name: it may come from a prompt.
    """
    kind = "inline" if inline else "attachment"
    visible = "".join(c for c in filename or "" if not unicodedata.category(c).startswith("C"))
    name = re.sub(r'[/\\"%]', "_", visible).strip(" .")[-_FILENAME_LENGTH:]
    if not name:
        return kind
    plain = re.sub(r"[^\x20-\x7e]", "_", name)
    extended = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'{kind}; filename="{plain}"{extended}'


def _signature(secret: bytes, method: str, key: str, params: Mapping[str, str]) -> str:
    fields = ("fluxfarm-link-1", method, key, *(params.get(name, "") for name in _SIGNED))
    encoded = [field.encode(errors="backslashreplace") for field in fields]
    message = b"".join(b"%d:%b\n" % (len(field), field) for field in encoded)
    return hmac.digest(secret, message, "sha256").hex()


def _kid(secret: str) -> str:
    return hashlib.sha256(b"fluxfarm-link-kid\n" + secret.encode()).hexdigest()[:8]
