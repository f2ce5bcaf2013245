"""Accepted jobs a second and polls a second of one API process; keep-alive connections on loopback.

What a call takes of the processor is told too, of the API, of PostgreSQL and of the callers themselves: that says what
it costs even where other programs run. The callers are one process that speaks HTTP/1.1 by hand, as a library for it
would take more than the API does. A bare route of FastAPI stands beside the calls: the least that one could cost.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import uvloop

from fluxfarm.catalog import KLEIN_SMALL
from fluxfarm.embedded import free_port
from fluxfarm.farmfile import RunningFarm

CONNECTIONS = 16
REQUESTS = 3_000


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests a second, the time of one in milliseconds, and the processor's for it (NaN: not told here).

    ``cpu`` is the API's, ``database`` that of all processes of PostgreSQL, ``callers`` that of this one.
    """

    name: str
    per_second: float
    p50: float
    p99: float
    cpu: float
    database: float
    callers: float


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head[9:12])
    at = head.lower().index(b"content-length:") + 15
    return status, await reader.readexactly(int(head[at : head.index(b"\r", at)]))


async def _load(url: str, message: Callable[[int], bytes], expected: int) -> list[float]:
    place = urlsplit(url)
    numbers = iter(range(REQUESTS))
    times: list[float] = []

    async def caller() -> None:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        for number in numbers:
            started = time.perf_counter()
            writer.write(message(number))
            status, body = await _answer(reader)
            times.append(time.perf_counter() - started)
            if status != expected:
                raise RuntimeError(f"{status}: {body[:200]!r}")
        writer.close()

    await asyncio.gather(*(caller() for _ in range(CONNECTIONS)))
    return times


def _rate(
    name: str, url: str, pids: tuple[int | None, int | None], message: Callable[[int], bytes], expected: int
) -> Rate:
    """``pids`` are the API's and PostgreSQL's."""
    started, before, ours = time.perf_counter(), [_cpu_seconds(pid) for pid in pids], time.process_time()
    times = sorted(uvloop.run(_load(url, message, expected)))
    seconds, callers = time.perf_counter() - started, time.process_time() - ours
    count = len(times)
    spent = [1000 * (_cpu_seconds(pid) - earlier) / count for pid, earlier in zip(pids, before, strict=True)]
    p50, p99 = (1000 * times[int(count * share)] for share in (0.5, 0.99))
    return Rate(name, count / seconds, p50, p99, spent[0], spent[1], 1000 * callers / count)


def _cpu_seconds(pid: int | None) -> float:
    """Processor time of a process, of its threads and of its children so far, as Linux tells it."""
    if pid is None:
        return float("nan")
    try:
        found = {int(folder.name): _stat(folder) for folder in Path("/proc").iterdir() if folder.name.isdecimal()}
    except OSError:
        return float("nan")
    ours = [fields for own, fields in found.items() if fields and (own == pid or int(fields[1]) == pid)]
    # Children that have ended count with their parent; of those that run only what they took themselves.
    return sum(int(field) for fields in ours for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def _stat(folder: Path) -> list[str]:
    """The fields of a process from its state on; none: it has ended."""
    try:
        return (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _pids(farm: RunningFarm) -> tuple[int | None, int | None]:
    return farm.pids.get("api"), farm.pids.get("postgres")


@contextmanager
def _bare() -> Iterator[tuple[str, int]]:
    """Where the bare route answers, and the pid of its process."""
    port = free_port()
    options = ("--no-access-log", "--no-server-header", "--log-level=warning")
    server = subprocess.Popen([sys.executable, "-m", "uvicorn", "bench.bare:app", f"--port={port}", *options])
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=8)) as client:  # each waits twice as long as the last
            client.get(f"{url}/bare").raise_for_status()
        yield url, server.pid
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)


def _head(method: str, path: str, url: str, key: str) -> str:
    return f"{method} {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nAuthorization: Bearer {key}\r\n"


def measure_bare() -> Rate:
    """A route that does nothing, without a farm."""
    with _bare() as (url, pid):
        request = f"GET /bare HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n\r\n".encode()
        return _rate("a bare route", url, (pid, None), lambda _number: request, 200)


def measure_posts(farm: RunningFarm, *, keyed: bool = False) -> Rate:
    """Jobs accepted; each is committed before its 202. ``keyed``: each under an ``Idempotency-Key`` of its own."""
    head = _head("POST", "/v1/jobs", farm.url, farm.api_key) + "Content-Type: application/json\r\n"

    def message(number: int) -> bytes:
        body = json.dumps(
            {
                "type": "IMAGE_GENERATOR",
                "model": KLEIN_SMALL.slug,
                "lane": "bulk",
                "promptObject": {"prompt": f"asset {number}", "size": "64x64", "num_inference_steps": 1},
            }
        )
        key = f"Idempotency-Key: {uuid4()}\r\n" if keyed else ""
        return f"{head}{key}Content-Length: {len(body)}\r\n\r\n{body}".encode()

    name = "jobs accepted, by key" if keyed else "jobs accepted"
    return _rate(name, farm.url, _pids(farm), message, 202)


def measure_polls(farm: RunningFarm, uuids: list[str]) -> Rate:
    """Reads of these jobs in turn."""
    requests = [(_head("GET", f"/v1/jobs/{uuid}", farm.url, farm.api_key) + "\r\n").encode() for uuid in uuids]
    return _rate("polls", farm.url, _pids(farm), lambda number: requests[number % len(requests)], 200)
