from __future__ import annotations

import datetime as dt
import gzip
import ipaddress
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fluxfarm.errors import ForbiddenUrl, UnreachableUrl
from fluxfarm.outbound import (
    Fetched,
    IPAddress,
    Outlet,
    Policy,
    Resolver,
    fetch,
    make_client,
)

HOST = "pictures.example"
LOOPBACK = ipaddress.ip_address("127.0.0.1")
OK = b"HTTP/1.1 200 OK\r\nContent-Type: image/PNG; x=y\r\n"


class Server:
    """A TCP server on loopback that counts its connections and hands each to ``answer``."""

    def __init__(
        self,
        answer: Callable[[socket.socket], None],
        address: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self._answer, self._tls = answer, tls
        self._socket = socket.create_server((address, port))
        self.port: int = self._socket.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._socket.accept()[0]
            except OSError:
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        with connection, suppress(OSError):  # the client is gone, as it should
            stream = connection if self._tls is None else self._tls.wrap_socket(connection, server_side=True)
            with stream:
                self.requests.append(stream.recv(65536))
                self._answer(stream)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


@contextmanager
def serving(answer: Callable[[socket.socket], None] | bytes, **where: Any) -> Iterator[Server]:
    server = Server((lambda c: c.sendall(answer)) if isinstance(answer, bytes) else answer, **where)
    try:
        yield server
    finally:
        server.close()


def loopback(_host: str, _port: int) -> Sequence[str]:
    return ["127.0.0.1"]


def only_loopback(address: IPAddress) -> bool:
    return address == LOOPBACK


def get(
    server: Server,
    path: str = "/a.png",
    *,
    limit_bytes: int = 1000,
    deadline_seconds: float = 5,
    resolver: Resolver = loopback,
    policy: Policy = only_loopback,
) -> Fetched:
    return fetch(
        f"http://{HOST}:{server.port}{path}",
        limit_bytes=limit_bytes,
        deadline_seconds=deadline_seconds,
        allow_http=True,
        allowed_ports={server.port},
        resolver=resolver,
        policy=policy,
    )


@contextmanager
def within(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def test_a_body_comes_back_with_its_type() -> None:
    with serving(OK + b"Content-Length: 5\r\n\r\nhello") as server:
        assert get(server, "/a%20b.png?x=1#secret") == Fetched(b"hello", "image/png")
        head = server.requests[0]
    assert head.startswith(b"GET /a%20b.png?x=1 HTTP/1.1\r\n")
    assert f"\r\nhost: {HOST}:{server.port}\r\n".encode() in head.lower()
    assert b"secret" not in head
    assert b"cookie" not in head.lower()
    assert b"accept-encoding: identity" in head.lower()


def test_chunked_and_closed_bodies_are_read() -> None:
    for answer in (b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"\r\nhello"):
        with serving(OK + answer) as server:
            assert get(server).body == b"hello"


def test_a_body_of_just_the_limit_is_taken() -> None:
    with serving(OK + b"Content-Length: 1000\r\n\r\n" + bytes(1000)) as server:
        assert len(get(server).body) == 1000


@pytest.mark.skipif(sys.platform != "linux", reason="needs a second loopback address")
def test_rebinding_reaches_nothing() -> None:
    """The first answer is let out, each later one leads inside; 127.0.0.2 plays the public Internet."""
    outside = "127.0.0.2"
    answers = iter([outside, "127.0.0.1"])
    with serving(OK + b"\r\ninside") as inside, serving(OK + b"\r\nout", address=outside, port=inside.port) as public:
        rules = {"resolver": lambda *_: [next(answers)], "policy": lambda address: str(address) == outside}
        with make_client(outlet_to(inside, **rules)) as client:
            assert client.get(f"http://{HOST}:{inside.port}/").content == b"out"
            with pytest.raises(ForbiddenUrl, match="not on the public Internet"):
                client.get(f"http://{HOST}:{inside.port}/")
        assert (list(answers), public.connections, inside.connections) == ([], 1, 0)


def test_one_inside_address_among_public_ones_forbids_the_name() -> None:
    with serving(OK + b"\r\n") as server:
        with pytest.raises(ForbiddenUrl):
            get(server, resolver=lambda *_: ["127.0.0.1", "127.0.0.3"])
        assert server.connections == 0


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with serving(b"HTTP/1.1 200 OK\r\n\r\ninside") as inside:
        answer = f"HTTP/1.1 {status} X\r\nLocation: http://169.254.169.254:{inside.port}/\r\nContent-Length: 0\r\n\r\n"
        with (
            serving(answer.encode()) as server,
            pytest.raises(ForbiddenUrl, match="redirects are not followed") as caught,
        ):
            get(server)
        assert "169.254" not in caught.value.message
        assert inside.connections == 0


@pytest.mark.parametrize("status", [201, 204, 206, 401, 403, 404, 500])
def test_another_status_is_no_picture(status: int) -> None:
    answer = f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode()
    with serving(answer) as server, pytest.raises(UnreachableUrl, match=f"status {status}"):
        get(server)


def drip(start: bytes, drop: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        for _ in range(200):
            time.sleep(0.02)
            connection.sendall(drop)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        drip(OK + b"Content-Length: 900\r\n\r\n", b"x"),
        drip(OK + b"\r\n", b"x"),
        drip(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        drip(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
        drip(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        drip(b"HTTP/1.1 200", b" "),
    ],
    ids=["length", "until closed", "chunked", "headers", "early hints", "status line"],
)
def test_one_clock_runs_for_a_server_that_drips(answer: Callable[[socket.socket], None]) -> None:
    with serving(answer) as server, within(2.5), pytest.raises(UnreachableUrl, match=r"within 0\.3 seconds"):
        get(server, deadline_seconds=0.3)


def silence(connection: socket.socket) -> None:
    connection.recv(1)


def test_a_server_that_never_answers() -> None:
    with serving(silence) as server, within(2.5), pytest.raises(UnreachableUrl, match=r"within 0\.2 seconds"):
        get(server, deadline_seconds=0.2)


def test_a_name_server_that_never_answers() -> None:
    release = threading.Event()

    def stuck(_host: str, _port: int) -> Sequence[str]:
        release.wait(10)
        return []

    with within(2.5), pytest.raises(UnreachableUrl, match=r"within 0\.2 seconds"):
        fetch(f"https://{HOST}/", limit_bytes=9, deadline_seconds=0.2, resolver=stuck)
    release.set()


def endless(start: bytes, part: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(part)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        endless(OK + b"\r\n", bytes(9999)),
        endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + bytes(4096) + b"\r\n"),
        OK + b"Content-Length: 1001\r\n\r\n" + bytes(1001),
        OK + b"Content-Length: 99999999999\r\n\r\n",
    ],
)
def test_a_body_beyond_the_limit_is_cut_off(answer: Callable[[socket.socket], None] | bytes) -> None:
    with serving(answer) as server, within(4), pytest.raises(UnreachableUrl, match="more than 1,000 bytes"):
        get(server)


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 10\r\n\r\nhello",
        OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x16\x03\x01\x02\x00" * 9,
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000,
        b"",
    ],
)
def test_a_server_that_lies_or_speaks_something_else(answer: bytes) -> None:
    with serving(answer) as server, within(4), pytest.raises(UnreachableUrl, match="broke off, or does not speak HTTP"):
        get(server)


def test_what_comes_after_the_declared_length_is_not_read() -> None:
    with serving(OK + b"Content-Length: 5\r\n\r\nhello and more") as server:
        assert get(server).body == b"hello"


def test_a_packed_body_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(5_000_000))
    answer = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb
    with serving(answer) as server:
        with pytest.raises(UnreachableUrl, match="a packed body"):
            get(server, limit_bytes=10_000)
        with make_client(outlet_to(server, limit_bytes=10_000)) as client:
            assert client.get(f"http://{HOST}:{server.port}/").content == bomb


def test_nobody_listens() -> None:
    with serving(b"") as server:
        pass
    with pytest.raises(UnreachableUrl, match="does not accept a connection"):
        get(server)


def test_the_next_address_is_tried_when_the_first_refuses() -> None:
    with serving(OK + b"\r\nhello", address="127.0.0.1") as server:
        resolver, policy = (lambda *_: ["::1", "127.0.0.1"]), (lambda address: address.is_loopback)
        assert get(server, resolver=resolver, policy=policy).body == b"hello"


def outlet_to(server: Server, **options: Any) -> Outlet:
    rules: dict[str, Any] = {"limit_bytes": 100, "deadline_seconds": 5, "allow_http": True, "resolver": loopback}
    return Outlet(**rules | {"allowed_ports": {server.port}, "policy": only_loopback} | options)


def test_a_client_posts_and_keeps_neither_cookies_nor_connections() -> None:
    with serving(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\nok") as server:
        with make_client(outlet_to(server)) as client:
            url = f"http://{HOST}:{server.port}/hook"
            for _ in range(2):
                assert client.post(url, content=b"x" * 70_000, headers={"webhook-id": "1"}).text == "ok"
            assert not client.cookies
            with client.stream("POST", url, json={}) as response:
                assert response.status_code == 200
            with pytest.raises(ForbiddenUrl):
                client.post(f"http://127.0.0.1.{HOST}:22/")
        assert server.connections == 3
        assert all(request.startswith(b"POST /hook ") for request in server.requests)
        assert not any(b"a=b" in request for request in server.requests)


def test_a_client_stops_sending_to_a_server_that_does_not_read() -> None:
    def deaf(_connection: socket.socket) -> None:
        time.sleep(0.6)

    with (
        serving(deaf) as server,
        within(4),
        make_client(outlet_to(server, deadline_seconds=0.3)) as client,
        pytest.raises(UnreachableUrl, match=r"within 0\.3 seconds"),
    ):
        client.post(f"http://{HOST}:{server.port}/", content=bytes(30_000_000))


def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(OK + b"\r\nproxy") as proxy, serving(OK + b"\r\nhello") as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert get(server).body == b"hello"
        assert proxy.connections == 0


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for ``name`` that signs itself, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = signed.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = folder / "chain.pem"
    chain.write_bytes(secret + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain)
    return server, ssl.create_default_context(cadata=pem.decode())


@pytest.mark.parametrize(
    ("name", "trusted", "why"),
    [(HOST, True, None), (HOST, False, "self-signed"), ("other.example", True, "not valid for")],
)
def test_tls_is_checked_against_the_name(tmp_path: Path, name: str, trusted: bool, why: str | None) -> None:
    context, client = certificate(tmp_path, name)
    with serving(OK + b"Content-Length: 5\r\n\r\nhello", tls=context) as server:
        outlet = outlet_to(server, allow_http=False, tls=client if trusted else None)
        with make_client(outlet) as caller:
            if why is None:
                assert caller.get(f"https://{HOST}:{server.port}/").text == "hello"
            else:
                with pytest.raises(UnreachableUrl, match=f"no TLS that can be trusted.*{why}"):
                    caller.get(f"https://{HOST}:{server.port}/")
                assert not server.requests


def test_a_handshake_that_never_ends() -> None:
    with (
        serving(drip(b"", b"\x16")) as server,
        within(2.5),
        make_client(outlet_to(server, deadline_seconds=0.3)) as client,
        pytest.raises(UnreachableUrl),
    ):
        client.get(f"https://{HOST}:{server.port}/")
