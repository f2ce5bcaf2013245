"""Real S3 wire servers for the tests, each started on a free loopback port and stopped by its process."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.programs import needed

ACCESS_KEY = "AKIAFLUXFARMTESTS"
SECRET_KEY = "fluxfarm-tests-secret-key"
START_LIMIT = 30.0  # seconds; a busy machine starts Python slowly


@dataclass(frozen=True)
class Server:
    """A running server: its name, port, and the folder where rclone keeps one folder per bucket."""

    name: str
    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(name: str, folder: Path) -> Iterator[Server]:
    """Another process may take the free port first, so a server that ends at once gets a second and a third port."""
    (folder / "data").mkdir()
    for last in (False, False, True):
        server = Server(name, free_port(), folder / "data")
        process = launch(server)
        try:
            if answers(server, process):
                yield server
                return
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if last:
            pytest.fail(f"{name} did not start: {(folder / 'log').read_text()[-2000:]}")


def launch(server: Server) -> subprocess.Popen[bytes]:
    """Start it, perhaps again where it was; it says nothing of whether it answers yet."""
    program, folder = needed(server.name, "the extra dev"), server.folder.parent
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(_command(program, server), cwd=folder, env=_environment(server), stdout=log, stderr=log)


def _command(program: str, server: Server) -> list[str]:
    if server.name == "ministack":
        return [program]
    listen = ["--addr", f"127.0.0.1:{server.port}", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
    return [
        program,
        "serve",
        "s3",
        *listen,
        "--config",
        "",
        "--cache-dir",
        str(server.folder.parent),
        str(server.folder),
    ]


def _environment(server: Server) -> dict[str, str]:
    own = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return own | {
        "AUTH": "true",  # off by default
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "SERVICES": "s3",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(server.port),
        "IOT_MTLS_ENABLED": "0",  # else port 8883 is opened on every address
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(server.folder),
    }


def answers(server: Server, process: subprocess.Popen[bytes]) -> bool:
    """Wait until it does; False: it ended, or took too long."""
    deadline = time.monotonic() + START_LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        try:
            httpx.get(server.url, timeout=2, trust_env=False)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return process.poll() is None
    return False
