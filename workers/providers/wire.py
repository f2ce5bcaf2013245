"""The one way to speak with a provider: one request, one reply, nothing repeated, nothing followed.

A connection is opened for each exchange: one kept from before may be dead already, and then nobody could say whether a
paid POST was read.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import httpx

from fluxfarm.errors import OutcomeUnknown, ProviderAccount, ProviderBusy
from fluxfarm.problems import seconds_of
from workers.providers.contract import Account

CONNECT_SECONDS: Final = 3.0
SUBMIT_SECONDS: Final = 30.0
SYNC_SECONDS: Final = 300.0  #: for a provider that renders while the caller waits
ASK_SECONDS: Final = 15.0  #: a poll, a cancel
SMALL_REPLY: Final = 2 * 2**20  #: bytes, when the reply names its pictures
LARGE_REPLY: Final = 128 * 2**20  #: bytes, when it holds them
LONGEST_PAUSE: Final = 3600.0  #: seconds; a longer Retry-After counts as this

# The request cannot have reached the provider.
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class _UnreadableError(Exception):
    """The reply is too long, too slow or packed."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, read in full."""

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def fine(self) -> bool:
        """Any 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004

    @property
    def retry_after(self) -> float | None:
        """Seconds, from either form of ``Retry-After``."""
        seconds = seconds_of(self.headers.get("retry-after"))
        return None if seconds is None else min(LONGEST_PAUSE, seconds)

    def json(self) -> dict[str, Any]:
        """The body as an object; empty for anything else."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


class Wire:
    """A client for one provider; it may be shared between threads."""

    def __init__(self, name: str) -> None:
        """``name`` is how errors call the provider."""
        self._name = name
        self._client = httpx.Client(
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_keepalive_connections=0),
            headers={"user-agent": "fluxfarm", "accept": "application/json", "accept-encoding": "identity"},
        )
        self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))

    def submit(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        seconds: float = SUBMIT_SECONDS,
        limit: int = SMALL_REPLY,
        **content: Any,
    ) -> Reply:
        """The one paid POST; ``content`` is httpx's ``json``, ``data``, ``files`` or ``params``.

        Raises:
            ProviderBusy: there was no connection, so nothing was sent.
            OutcomeUnknown: something was sent and no whole reply came back.
        """
        try:
            return self._exchange("POST", url, headers, seconds, limit, content)
        except _NOT_SENT:
            raise ProviderBusy(f"{self._name} accepts no connection.") from None
        except (httpx.TransportError, _UnreadableError) as error:
            told = f"{self._name} was sent a paid call, and its reply was lost: {_worded(error)}."
            raise OutcomeUnknown(told) from None

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        seconds: float = ASK_SECONDS,
        limit: int = SMALL_REPLY,
        **content: Any,
    ) -> Reply:
        """A call that costs nothing and may be made again: a poll, a cancel, an upload.

        Raises:
            ProviderBusy: no whole reply.
        """
        try:
            return self._exchange(method, url, headers, seconds, limit, content)
        except (httpx.TransportError, _UnreadableError) as error:
            raise ProviderBusy(f"{self._name} gave no whole answer: {_worded(error)}.") from None

    def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], seconds: float, limit: int, content: Mapping[str, Any]
    ) -> Reply:
        end = time.monotonic() + seconds
        timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
        with self._client.stream(method, url, headers=headers, timeout=timeout, **content) as response:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise _UnreadableError("it is packed")
            parts, taken = [], 0
            for part in response.iter_raw():
                taken += len(part)
                if taken > limit:
                    raise _UnreadableError(f"it has more than {limit:,} bytes")
                if time.monotonic() > end:
                    raise _UnreadableError(f"it was not complete after {seconds:g} s")
                parts.append(part)
            return Reply(response.status_code, response.headers, b"".join(parts))


def secret(account: Account) -> str:
    """The key, fit for a header.

    Raises:
        ProviderAccount: it is empty, or holds what no header can carry.
    """
    key = account.key.get_secret_value()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ProviderAccount(f"The key of account {account.name} is empty or malformed.")
    return key


def bearer(account: Account) -> dict[str, str]:
    """The usual header."""
    return {"authorization": f"Bearer {secret(account)}"}


def may_carry_key(url: str, account: Account, hosts: tuple[str, ...]) -> bool:
    """Whether a URL that a provider named may be sent the key: the host of the account, or over https one of ``hosts``.

    The port may differ only where the account's own address is plain http, as on loopback. ``hosts`` are names, or
    ``.suffix`` for everything below a name.
    """
    try:
        found, base = httpx.URL(url), httpx.URL(account.base_url)
        if found.userinfo or not found.host:
            return False
        same_port = found.port == base.port or base.scheme == "http"
        if same_port and (found.scheme, found.host) == (base.scheme, base.host):
            return True
    except (httpx.InvalidURL, ValueError):
        return False
    named = any(found.host.endswith(host) if host.startswith(".") else found.host == host for host in hosts)
    return named and found.scheme == "https" and found.port is None


def _worded(error: Exception) -> str:
    """Names the fault without the URL and the headers that httpx's errors may carry."""
    if isinstance(error, _UnreadableError):
        return str(error)
    if isinstance(error, httpx.TimeoutException):
        return "it did not come in time"
    return "the connection broke"
