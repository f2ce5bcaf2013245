"""A receiver of webhooks on loopback, which checks signatures with the reference library, and the way to reach it."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook

from fluxfarm.outbound import IPAddress, Outlet

HOST = "hooks.example"
OK = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass
class Arrived:
    """One POST, as it came."""

    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> Any:
        """The body, if the secret signed it less than five minutes ago."""
        return Webhook(secret).verify(self.body, self.headers)


Answer = bytes | Callable[[socket.socket], None]


@dataclass
class Receiver:
    """Answers in the order of ``answers``, then with 204; ``hold`` keeps connections open until it is set."""

    answers: list[Answer] = field(default_factory=list)
    arrived: list[Arrived] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/hook?token=s3cr3t"

    def outlet(self, seconds: float = 5.0, **changes: Any) -> Outlet:
        """Production's rules, but for the address, the port and the scheme."""
        found: dict[str, Any] = {
            "limit_bytes": 20_000,
            "deadline_seconds": seconds,
            "allow_http": True,
            "allowed_ports": {self.port},
            "resolver": loopback,
            "policy": only_loopback,
        }
        return Outlet(**(found | changes))

    def _accept(self) -> None:
        while True:
            try:
                connection = self._socket.accept()[0]
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        with connection, suppress(OSError):  # the sender is gone, as it should
            head, _, body = _read(connection).partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines[1:])
            with self._lock:
                self.arrived.append(Arrived({name.lower(): value for name, value in headers.items()}, body))
                answer = self.answers.pop(0) if self.answers else OK
            if isinstance(answer, bytes):
                connection.sendall(answer)
            else:
                answer(connection)

    def never(self, _connection: socket.socket) -> None:
        """Take the message and say nothing."""
        self.hold.wait(10)

    def close(self) -> None:
        self.hold.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


def _read(connection: socket.socket) -> bytes:
    got = b""
    while b"\r\n\r\n" not in got:
        got += connection.recv(65536)
    head, _, body = got.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def receiving(*answers: Answer) -> Iterator[Receiver]:
    receiver = Receiver(list(answers))
    try:
        yield receiver
    finally:
        receiver.close()


def status(code: int, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"HTTP/1.1 {code} X", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def loopback(_host: str, _port: int) -> Sequence[str]:
    return ["127.0.0.1"]


def only_loopback(address: IPAddress) -> bool:
    return address == ipaddress.ip_address("127.0.0.1")
