"""Servers that misbehave on purpose, and small things that stand between a client and a real server."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal


@dataclass(frozen=True)
class Call:
    """One request as it arrived; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Reply:
    """An answer that the proxy gives itself instead of asking the real server."""

    status: int
    code: str = ""
    body: bytes = b""

    @property
    def content(self) -> bytes:
        return self.body or b"<Error><Code>%s</Code><Message>no</Message></Error>" % self.code.encode()


Verdict = Reply | Literal["pass", "lose the reply"]
Rule = Callable[[Call], Verdict]


@dataclass
class Proxy:
    """Where it listens, and what it has seen."""

    url: str
    calls: list[Call] = field(default_factory=list)


class LoopbackServer(ThreadingHTTPServer):
    """Says nothing of clients that went away."""

    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


@contextmanager
def proxy(upstream_port: int, rule: Rule) -> Iterator[Proxy]:
    """Hands requests on with their headers as they are (Host is signed), except where ``rule`` steps in."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            call = Call(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
            seen.calls.append(call)
            body = self.rfile.read(int(call.headers.get("content-length", "0")))
            verdict = rule(call)
            if isinstance(verdict, Reply):
                self.answer(verdict.status, {"Content-Type": "text/html"}, verdict.content)
                return
            try:
                status, kept, content = self.ask(call, body)
            except (OSError, HTTPException):  # the server is down: so is this door
                self.close_connection = True
                return
            if verdict == "lose the reply":
                self.close_connection = True
                return
            self.answer(status, kept, content)

        def ask(self, call: Call, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = HTTPConnection("127.0.0.1", upstream_port, timeout=10)
            headers = {name: value for name, value in call.headers.items() if name not in {"expect", "connection"}}
            with closing(connection):
                connection.request(call.method, call.path, body, headers)
                reply = connection.getresponse()
                kept = {name: value for name, value in reply.getheaders() if name.lower() not in _HOP}
                return reply.status, kept, reply.read()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

        def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Stays quiet."""

    server = LoopbackServer(("127.0.0.1", 0), Handler)
    seen = Proxy(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


_HOP = {"content-length", "connection", "transfer-encoding", "keep-alive"}


@contextmanager
def black_hole() -> Iterator[str]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def forwarder(upstream_port: int) -> Iterator[int]:
    """A second door to the same server, on another port: what a published container port is."""
    opened: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_forward, args=(listener, upstream_port, opened), daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=5)
        for end in opened:
            end.close()


def _forward(listener: socket.socket, upstream_port: int, opened: list[socket.socket]) -> None:
    with suppress(OSError):
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", upstream_port))
            opened += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
