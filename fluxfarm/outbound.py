"""The one way out to addresses that strangers name: reference URLs and webhooks, never into a private network.

A URL is judged twice. Its text first: scheme, port, no login, a real host name or a plain address. Then, when the
connection is made, the name is resolved once, *every* address is checked, and the socket is opened to one of those that
were checked: a name that would answer otherwise a second time (DNS rebinding) is not asked a second time. TLS still
checks the certificate against the name. No proxy, no cookies, no redirects; one clock runs for the whole exchange, from
the DNS query to the last byte, so a server that drips bytes gains nothing.

The rule for addresses is stricter than ``ipaddress``: Python 3.11.7 calls 2002:7f00:1::, ::127.0.0.1, 192.0.0.8,
224.0.0.1 and ff02::1 global. IPv6 must be global unicast (2000::/3) outside the ranges that stand for something else
(IANA's special-purpose registries). NAT64 (RFC 6052), which DNS64 resolvers make up for every public name, counts as
the IPv4 address inside it.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import httpcore
import httpx

from fluxfarm.errors import ForbiddenUrl, UnreachableUrl

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Sequence[str]]  #: host and port to addresses; raises OSError for an unknown name
Policy = Callable[[IPAddress], bool]  #: True for an address that may be connected to

MAX_URL: Final = 4096  #: characters; presigned URLs with a session token come near 2,000
MAX_ADDRESSES: Final = 4  #: of one name that are tried
CONNECT_SECONDS: Final = 3.0  #: for one address
PORTS: Final = {"https": 443, "http": 80}

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
# IETF assignments (Oracle's metadata server among them), 6to4 relays, Azure's host, which is global by its number only
_DENIED_V4: Final = ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")
# IETF assignments with Teredo, documentation twice, 6to4, AS112
_DENIED_V6: Final = ("2001::/23", "2001:db8::/32", "3fff::/20", "2002::/16", "2620:4f:8000::/48")
_DENIED: Final = tuple(ipaddress.ip_network(text) for text in (*_DENIED_V4, *_DENIED_V6))
_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_INSIDE: Final = frozenset({"localhost", "local", "internal", "localdomain", "lan", "home", "corp", "arpa", "onion"})


def is_public(address: IPAddress) -> bool:
    """True when the address can only be a host on the open Internet; the rule is in this module's docstring."""
    if address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    special = not address.is_global or address.is_multicast or address.is_reserved
    if special or any(address in network for network in _DENIED):
        return False
    return address.version == 4 or (address in _GLOBAL_UNICAST and address.scope_id is None)  # noqa: PLR2004


def system_resolver(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, as the machine's resolver gives them."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A body, and the media type that its server gave it (lower case, without parameters, perhaps empty)."""

    body: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Outlet:
    """The rules of one way out; ``resolver``, ``policy`` and ``tls`` are the seams for tests on loopback.

    ``limit_bytes`` caps a reply's body, ``deadline_seconds`` a whole exchange. ``allowed_ports`` replaces 443 for https
    and 80 for http.
    """

    limit_bytes: int
    deadline_seconds: float
    allow_http: bool = False
    allowed_ports: Collection[int] | None = None
    resolver: Resolver = system_resolver
    policy: Policy = is_public
    tls: ssl.SSLContext | None = None

    def check(self, url: httpx.URL) -> None:
        """Judge the URL by its text alone.

        Raises:
            ForbiddenUrl: its scheme, login, port or host is not let out.
        """
        if url.scheme != "https" and not (url.scheme == "http" and self.allow_http):
            raise ForbiddenUrl(f"The URL must start with {'http:// or ' if self.allow_http else ''}https://.")
        if url.userinfo:
            raise ForbiddenUrl("The URL holds a user name or a password; send one without, perhaps a presigned one.")
        ports = (PORTS[url.scheme],) if self.allowed_ports is None else self.allowed_ports
        port = PORTS[url.scheme] if url.port is None else url.port
        if port not in ports:
            raise ForbiddenUrl(f"The URL names port {port}; the farm opens {', '.join(map(str, ports))} only.")
        _check_host(_ascii_host(url), self.policy)

    def addresses(self, host: str, port: int, clock: Clock) -> list[str]:
        """Resolve once and check every address.

        Raises:
            ForbiddenUrl: one of the addresses is not public; none of them is named, as they may be inside ones.
            UnreachableUrl: the name does not resolve, or not in time.
        """
        literal = _literal(host)
        texts = [str(literal)] if literal is not None else _resolve(self.resolver, host, port, clock)
        try:
            found = [ipaddress.ip_address(text) for text in dict.fromkeys(texts)]
        except ValueError:  # for instance a scoped address that this Python cannot read
            raise _not_public(host) from None
        if not all(self.policy(address) for address in found):
            raise _not_public(host)
        return [str(address) for address in found[:MAX_ADDRESSES]]


class Clock:
    """The one deadline of an exchange, in seconds of the monotonic clock."""

    def __init__(self, seconds: float, host: str) -> None:
        self._seconds, self._host, self._end = seconds, host, time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that are left.

        Raises:
            UnreachableUrl: none.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.over()
        return left

    def over(self) -> UnreachableUrl:
        """The error for a deadline that has passed."""
        return UnreachableUrl(f"{self._host} did not answer completely within {self._seconds:g} seconds.")


def parse_url(text: str) -> httpx.URL:
    """Read a URL; its fragment is dropped.

    Raises:
        ForbiddenUrl: it is too long, or no URL with a host.
    """
    if len(text) > MAX_URL:
        raise ForbiddenUrl(f"The URL has {len(text):,} characters; at most {MAX_URL:,} are taken.")
    try:
        url = httpx.URL(text)
        host = url.host  # fails here, rather than in the midst of httpx, for a name that is no IDNA (xn--0)
    except (httpx.InvalidURL, ValueError, TypeError):
        host = ""
    if not host:
        raise ForbiddenUrl("This is not a URL with a host name, such as https://example.com/picture.png.")
    return url.copy_with(fragment=None)


def make_client(outlet: Outlet) -> httpx.Client:
    """A client that keeps to the rules of ``outlet`` whatever it is asked; close it, or use it in a ``with``.

    Its calls raise ``ForbiddenUrl`` and ``UnreachableUrl`` instead of httpx's own errors. Redirects come back as they
    are, bodies as they were sent, never unpacked. Each call has a connection of its own. Give it the result of
    ``parse_url``. Who needs only the status opens the call with ``client.stream`` and leaves the body unread.
    """
    client = httpx.Client(
        transport=GuardedTransport(outlet),
        trust_env=False,
        follow_redirects=False,
        timeout=outlet.deadline_seconds,
        headers={"accept-encoding": "identity", "user-agent": "fluxfarm"},
    )
    client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))
    return client


def fetch(
    url: str,
    *,
    limit_bytes: int,
    deadline_seconds: float,
    allow_http: bool = False,
    allowed_ports: Collection[int] | None = None,
    resolver: Resolver = system_resolver,
    policy: Policy = is_public,
    tls: ssl.SSLContext | None = None,
) -> Fetched:
    """GET what a stranger's URL points to, in full.

    Raises:
        ForbiddenUrl: the URL, an address of its host, or a redirect that it answers with is not let out.
        UnreachableUrl: no 200 in time, too many bytes, or packed although the plain body was asked for.
    """
    outlet = Outlet(limit_bytes, deadline_seconds, allow_http, allowed_ports, resolver, policy, tls)
    target = parse_url(url)
    host = _ascii_host(target)
    with make_client(outlet) as client, client.stream("GET", target) as response:
        if response.status_code // 100 == 3:  # noqa: PLR2004 - the whole class: 300 and 304 bring no picture either
            raise ForbiddenUrl(f"{host} redirects elsewhere; redirects are not followed. Send the final URL.")
        if response.status_code != httpx.codes.OK:
            raise UnreachableUrl(f"{host} answered with status {response.status_code}.")
        if response.extensions["packed"]:
            raise UnreachableUrl(f"{host} sent a packed body although a plain one was asked for.")
        if int(response.headers.get("content-length", "0")) > limit_bytes:  # h11 has seen that it is a number
            raise _too_long(host, limit_bytes)
        body = b"".join(response.iter_raw())
        return Fetched(body, response.headers.get("content-type", "").partition(";")[0].strip().lower())


class GuardedTransport(httpx.BaseTransport):
    """Carries one call over one connection of its own, by the rules of its outlet."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and read the head; httpx is not told of a packed body, ``extensions["packed"]`` tells the caller."""
        self._outlet.check(request.url)
        if not isinstance(request.stream, httpx.SyncByteStream):
            raise TypeError("This client is synchronous.")
        host = _ascii_host(request.url)
        clock = Clock(self._outlet.deadline_seconds, host)
        pool = httpcore.ConnectionPool(
            ssl_context=self._outlet.tls or _system_tls(),
            max_connections=1,
            network_backend=_CheckedBackend(self._outlet, clock),
        )
        asked = request.url
        url = httpcore.URL(scheme=asked.raw_scheme, host=asked.raw_host, port=asked.port, target=asked.raw_path)
        call = httpcore.Request(request.method, url, headers=request.headers.raw, content=request.stream)
        try:
            with _worded(host):
                response = pool.handle_request(call)
        except BaseException:
            pool.close()
            raise
        encodings = {value.strip().lower() for name, value in response.headers if name.lower() == b"content-encoding"}
        return httpx.Response(
            response.status,
            headers=[(name, value) for name, value in response.headers if name.lower() != b"content-encoding"],
            stream=_CappedBody(response, pool, host, self._outlet.limit_bytes),
            extensions={"packed": bool(encodings - {b"identity", b""})},
        )


class _CappedBody(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response, pool: httpcore.ConnectionPool, host: str, limit: int) -> None:
        self._response, self._pool, self._host, self._limit = response, pool, host, limit

    def __iter__(self) -> Iterator[bytes]:
        taken = 0
        with _worded(self._host):
            for part in self._response.iter_stream():
                taken += len(part)
                if taken > self._limit:
                    raise _too_long(self._host, self._limit)
                yield part

    def close(self) -> None:
        self._response.close()
        self._pool.close()


class _CheckedBackend(httpcore.NetworkBackend):
    """Opens sockets to checked addresses only."""

    def __init__(self, outlet: Outlet, clock: Clock) -> None:
        self._outlet, self._clock = outlet, clock

    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.NetworkStream:
        for address in self._outlet.addresses(host, port, self._clock):
            try:
                connection = socket.create_connection((address, port), min(CONNECT_SECONDS, self._clock.left()))
            except OSError:
                continue
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return _TimedStream(connection, self._clock)
        self._clock.left()
        raise UnreachableUrl(f"{host} does not accept a connection on port {port}.")


class _TimedStream(httpcore.NetworkStream):
    """A socket on which every wait is bounded by the one clock, not each by itself as httpcore does it."""

    def __init__(self, connection: socket.socket, clock: Clock) -> None:
        self._connection, self._clock = connection, clock

    def read(self, max_bytes: int, *_: Any, **__: Any) -> bytes:
        self._connection.settimeout(self._clock.left())
        try:
            return self._connection.recv(max_bytes)
        except TimeoutError:
            raise self._clock.over() from None
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    def write(self, buffer: bytes, *_: Any, **__: Any) -> None:
        while buffer:
            self._connection.settimeout(self._clock.left())
            try:
                buffer = buffer[self._connection.send(buffer) :]
            except TimeoutError:
                raise self._clock.over() from None
            except OSError as error:  # httpcore reads on: the answer may be there already
                raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        self._connection.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, *_: Any, **__: Any
    ) -> httpcore.NetworkStream:
        try:
            self._connection.settimeout(self._clock.left())
            wrapped = ssl_context.wrap_socket(self._connection, server_hostname=server_hostname)
        except OSError as error:
            self.close()
            if isinstance(error, TimeoutError):
                raise self._clock.over() from None
            why = f": {error.verify_message}" if isinstance(error, ssl.SSLCertVerificationError) else ""
            raise UnreachableUrl(f"{server_hostname} has no TLS that can be trusted{why}.") from None
        return _TimedStream(wrapped, self._clock)

    def get_extra_info(self, info: str) -> Any:  # noqa: ARG002 - httpcore asks for ALPN and idleness: neither is used
        return None


@contextmanager
def _worded(host: str) -> Iterator[None]:
    """The errors of httpcore, and of h11 below it, as ours."""
    try:
        yield
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, ValueError) as error:
        raise UnreachableUrl(f"{host} broke off, or does not speak HTTP as it should.") from error


@functools.cache
def _system_tls() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


def _ascii_host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii").lower()


def _too_long(host: str, limit: int) -> UnreachableUrl:
    return UnreachableUrl(f"{host} sends more than {limit:,} bytes, the most that is taken.")


def _literal(host: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _not_public(host: str) -> ForbiddenUrl:
    return ForbiddenUrl(f"{host} is not on the public Internet, and the farm opens nothing else.")


def _check_host(host: str, policy: Policy) -> None:
    literal, labels = _literal(host), host.split(".")
    if literal is not None and policy(literal):
        return
    if literal is not None or len(labels) == 1 or labels[-1] in _INSIDE:
        raise _not_public(host[:80])
    # A last label that is a number is an IPv4 address in disguise (2130706433, 0x7f.1, 0177.0.0.1).
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)) or labels[-1][0].isdigit():  # noqa: PLR2004 - RFC 1035
        raise ForbiddenUrl(f"{host[:80]!r} is not the name of a host; write it in full, without a dot at its end.")


def _resolve(resolver: Resolver, host: str, port: int, clock: Clock) -> Sequence[str]:
    """Ask in a thread that can be left behind: ``getaddrinfo`` knows no time limit."""
    answers: list[Sequence[str]] = []

    def ask() -> None:
        try:
            answers.append(resolver(host, port))
        except (OSError, UnicodeError):
            answers.append(())

    thread = threading.Thread(target=ask, name="resolve", daemon=True)
    thread.start()
    thread.join(clock.left())
    if not answers:
        raise clock.over()
    if not answers[0]:
        raise UnreachableUrl(f"The name {host} does not resolve.")
    return answers[0]
