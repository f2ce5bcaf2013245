"""HTTP between the client and a farm: what is sent again, how long it waits, and which error it becomes."""

from __future__ import annotations

import ipaddress
import json
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import httpx

from fluxfarm import __version__
from fluxfarm.errors import (
    Forbidden,
    IdempotencyInFlight,
    InvalidField,
    InvalidIdempotencyKey,
    LinkExpired,
    NotFound,
    StoreUnavailable,
    Unauthorized,
    Unavailable,
)
from fluxfarm.problems import from_response, seconds_of

CONNECT_TIMEOUT: Final = 10.0  #: seconds
BUSY_PATIENCE: Final = 10.0  #: seconds that a GET is repeated while the farm answers 503
FIRST_DELAY: Final = 0.1  #: seconds before the first repetition; doubles up to
LONGEST_DELAY: Final = 5.0  #: seconds
MAX_KEY: Final = 255  #: characters of an idempotency key
SILENCE: Final = 60.0  #: seconds without a byte after which an event stream counts as broken
START_ONE: Final = "Start one with 'fluxfarm up', or name another with FLUXFARM_URL."

_BROKEN: Final = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout, httpx.ProxyError)


def farm_url(text: str) -> str:
    """The address of a farm without a slash at the end.

    Raises:
        InvalidField: not an http(s) URL, or one with a password, a query or a fragment.
    """
    try:
        url = httpx.URL(text.strip())
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidField(f"{text[:200]!r} is not the URL of a farm; write it as http://host:8000.", param="url")
    if url.userinfo or url.query or url.fragment:
        message = "The farm's URL may hold no password, query or fragment; the key goes into FLUXFARM_API_KEY."
        raise InvalidField(message, param="url")
    return str(url).rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _headers(api_key: str) -> dict[str, str]:
    headers = {"user-agent": f"fluxfarm/{__version__}", "accept": "application/json"}
    if not api_key:
        return headers
    if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
        raise Unauthorized("The API key holds characters that no key has; check FLUXFARM_API_KEY.")
    return headers | {"authorization": f"Bearer {api_key}"}


def _visible(key: str) -> str:
    if not 1 <= len(key) <= MAX_KEY or not all("!" <= character <= "~" for character in key) or key[0] == '"':
        message = f"An idempotency key is one word of 1 to {MAX_KEY} visible ASCII characters, a UUID for one."
        raise InvalidIdempotencyKey(message)
    return key


def encode(body: Mapping[str, object]) -> bytes:
    """JSON, in ASCII, so that text which UTF-8 cannot hold reaches the farm and gets its answer.

    Raises:
        InvalidField: NaN, an infinity, or something that JSON has no form for.
    """
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidField(f"The request is no JSON: {error}.") from error


class Transport:
    """One farm's connection pool; what cannot be done twice is repeated when the connection breaks, nothing else is."""

    def __init__(self, url: str, api_key: str, *, timeout: float, patience: float) -> None:
        """``timeout`` bounds a single read or write, ``patience`` a repetition; both in seconds."""
        self.url = farm_url(url)
        self.timeout = timeout
        self.patience = patience
        limits = httpx.Timeout(timeout, connect=min(CONNECT_TIMEOUT, timeout))
        # A proxy of the environment cannot know this machine's own loopback.
        near = _is_loopback(httpx.URL(self.url).host)
        self._http = httpx.Client(headers=_headers(api_key.strip()), timeout=limits, trust_env=not near)
        self._store: httpx.Client | None = None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        if self._store is not None:
            self._store.close()

    def get(
        self, path: str, params: Mapping[str, object] | None = None, *, held: float = 0, patience: float = 0
    ) -> httpx.Response:
        """GET, repeated within bounds; ``held`` is how many seconds the farm may hold the reply back.

        Raises:
            Unavailable: the farm cannot be reached, or stays busy; other leaves by the code of the reply.
        """
        timeout = httpx.Timeout(self.timeout + held, connect=min(CONNECT_TIMEOUT, self.timeout))
        longest = max(self.patience, patience)
        return self._repeated("GET", path, longest, params=_query(params), timeout=timeout)

    def _repeated(self, method: str, path: str, longest: float, **options: Any) -> httpx.Response:
        """A request that may be sent again: on a broken connection, a busy farm, or a twin that is in flight."""
        started, delay = time.monotonic(), FIRST_DELAY
        while True:
            try:
                return self.send(method, path, **options)
            except (Unavailable, IdempotencyInFlight) as error:
                broken = isinstance(error.__cause__, _BROKEN)
                busy = error.__cause__ is None
                limit = max(longest, BUSY_PATIENCE) if busy else longest
                pause = error.retry_after if error.retry_after is not None else delay * random.uniform(0.5, 1)  # noqa: S311
                if not (broken or busy) or time.monotonic() - started + pause > limit:
                    raise
                time.sleep(pause)
                delay = min(2 * delay, LONGEST_DELAY)

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request, sent once.

        Raises:
            Unavailable: no reply; other leaves by the code of the reply.
        """
        with self._translated(method):
            response = self._http.request(method, self.url + path, **options)
        if not response.is_success:
            raise from_response(response, f"The farm at {self.url}")
        return response

    def post(self, path: str, body: Mapping[str, object] | None = None, *, key: str | None = None) -> httpx.Response:
        """POST of a JSON object, sent once; with an idempotency ``key`` it is repeated as a GET is."""
        options: dict[str, Any] = {"headers": {}}
        if body is not None:
            options = {"content": encode(body), "headers": {"content-type": "application/json"}}
        if key is None:
            return self.send("POST", path, **options)
        options["headers"]["idempotency-key"] = _visible(key)
        return self._repeated("POST", path, self.patience, **options)

    def patch(self, path: str, body: Mapping[str, object]) -> httpx.Response:
        """PATCH of a JSON object, sent once."""
        return self.send("PATCH", path, content=encode(body), headers={"content-type": "application/json"})

    def repeat(
        self, path: str, body: Mapping[str, object], *, params: Mapping[str, object], timeout: float
    ) -> httpx.Response:
        """POST of a JSON object that the farm itself takes once, however often it comes; repeated as a GET is."""
        headers = {"content-type": "application/json"}
        limits = httpx.Timeout(max(timeout, self.timeout), connect=min(CONNECT_TIMEOUT, self.timeout))
        return self._repeated(
            "POST", path, self.patience, content=encode(body), headers=headers, params=_query(params), timeout=limits
        )

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """A GET whose body comes bit by bit; a break in it is ``Unavailable`` too."""
        timeout = httpx.Timeout(self.timeout, read=SILENCE, connect=min(CONNECT_TIMEOUT, self.timeout))
        opened = self._http.stream("GET", self.url + path, headers=dict(headers), timeout=timeout)
        with self._translated("GET"), opened as response:
            if not response.is_success:
                response.read()
                raise from_response(response, f"The farm at {self.url}")
            yield response

    def fetch(self, link: str) -> bytes:
        """What a presigned link gives; the store is never sent the API key, nor is the link put in an error.

        Raises:
            LinkExpired: the store refuses the link.
            NotFound: the object is gone.
            StoreUnavailable: no whole reply.
        """
        if self._store is None:
            near = _is_loopback(httpx.URL(link).host)
            headers = {"user-agent": f"fluxfarm/{__version__}"}
            self._store = httpx.Client(
                headers=headers, timeout=self.timeout, follow_redirects=True, max_redirects=5, trust_env=not near
            )
        host = httpx.URL(link).host
        try:
            response = self._store.get(link)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise StoreUnavailable(f"Cannot fetch the picture from {host} ({type(error).__name__}).") from error
        if response.is_success:
            return response.content
        if response.status_code in (Forbidden.status, Unauthorized.status):
            raise LinkExpired(f"{host} refuses the link: it is past its time, or it was altered.")
        if response.status_code == NotFound.status:
            raise NotFound(f"The picture is no longer at {host}.")
        retry_after = seconds_of(response.headers.get("retry-after"))
        raise StoreUnavailable(f"{host} answered {response.status_code} for the picture.", retry_after=retry_after)

    @contextmanager
    def _translated(self, method: str) -> Iterator[None]:
        try:
            yield
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL, UnicodeError) as error:
            raise InvalidField(f"This cannot be sent over HTTP: {error}.") from error
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise Unavailable(f"No farm answers at {self.url} ({error}). {START_ONE}") from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            doubt = (
                "" if method == "GET" else " What was asked may have been done all the same: look before you repeat it."
            )
            raise Unavailable(f"The connection to {self.url} broke ({reason}).{doubt}") from error


def _query(params: Mapping[str, object] | None) -> dict[str, str]:
    return {name: str(value) for name, value in (params or {}).items() if value is not None}
