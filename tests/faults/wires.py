"""A TCP way to a server that can be held up: what a lost route, a firewall or a frozen host does to a connection."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Wire:
    """Passes bytes on until it is told to swallow them; nobody's connection is closed by that."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        """``connect`` opens a connection to the real server."""
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._passing = threading.Event()
        self._passing.set()
        self._lock = threading.Lock()
        self._live: set[tuple[socket.socket, socket.socket]] = set()
        self._frozen: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def freeze(self) -> int:
        """Swallow whatever the open connections say from now on; new ones work. Gives how many are open."""
        with self._lock:
            self._frozen |= {end for pair in self._live for end in pair}
            return len(self._live)

    def block(self) -> None:
        """Swallow everything, also on new connections, until ``clear``."""
        self._passing.clear()
        self.freeze()

    def clear(self) -> None:
        """New connections work again; those that were swallowed stay dead."""
        self._passing.set()

    def close(self) -> None:
        """End every connection."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=5)
        with self._lock:
            ends = [end for pair in self._live for end in pair] + list(self._frozen)
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        if not self._passing.is_set():
            with self._lock:
                self._frozen.add(near)
            return
        try:
            far = self._connect()
        except OSError:
            near.close()
            return
        with self._lock:
            self._live.add((near, far))
        back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
        back.start()
        self._pump(near, far)
        back.join()
        with self._lock:
            self._live.discard((near, far))
            dead = {near, far} & self._frozen
        if not dead:
            near.close()
            far.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if source in self._frozen:
                    return  # unread from here on: the other side sees neither an answer nor an end
                sink.sendall(data)
        if source not in self._frozen:
            for end in (source, sink):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


@contextmanager
def wire_to_port(port: int) -> Iterator[Wire]:
    """A way to a server on loopback."""
    wire = Wire(lambda: socket.create_connection(("127.0.0.1", port)))
    try:
        yield wire
    finally:
        wire.close()


@contextmanager
def wire_to_socket(path: str) -> Iterator[Wire]:
    """A TCP way to a server on a unix socket."""

    def connect() -> socket.socket:
        end = socket.socket(socket.AF_UNIX)
        try:
            end.connect(path)
        except OSError:
            end.close()
            raise
        return end

    wire = Wire(connect)
    try:
        yield wire
    finally:
        wire.close()
