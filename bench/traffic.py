"""Accepted jobs a second and polls a second of one API process; keep-alive connections on loopback.

The processor's time of the API for one call is told too: it says what a call costs even where other programs run.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fluxfarm.catalog import KLEIN_SMALL
from fluxfarm.farmfile import RunningFarm

CONNECTIONS = 16
REQUESTS = 3_000


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests a second, the time of one in milliseconds, and the API's processor time for it (NaN: not told here)."""

    name: str
    per_second: float
    p50: float
    p99: float
    cpu: float


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    length = next(
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    )
    return status, await reader.readexactly(length)


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


def _rate(name: str, farm: RunningFarm, message: Callable[[int], bytes], expected: int) -> Rate:
    started, before = time.perf_counter(), _cpu_seconds(farm.pids["api"])
    times = sorted(asyncio.run(_load(farm.url, message, expected)))
    seconds, spent = time.perf_counter() - started, _cpu_seconds(farm.pids["api"]) - before
    count = len(times)
    return Rate(name, count / seconds, 1000 * times[count // 2], 1000 * times[int(count * 0.99)], 1000 * spent / count)


def _cpu_seconds(pid: int) -> float:
    """Processor time of a process and its threads so far, as Linux tells it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _head(method: str, path: str, url: str, key: str) -> str:
    return f"{method} {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nAuthorization: Bearer {key}\r\n"


def measure_posts(farm: RunningFarm) -> Rate:
    """Jobs accepted; each is committed before its 202."""

    def message(number: int) -> bytes:
        body = json.dumps(
            {
                "type": "IMAGE_GENERATOR",
                "model": KLEIN_SMALL.slug,
                "lane": "bulk",
                "promptObject": {"prompt": f"asset {number}", "size": "64x64", "num_inference_steps": 1},
            }
        )
        head = _head("POST", "/v1/jobs", farm.url, farm.api_key)
        return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    return _rate("jobs accepted", farm, message, 202)


def measure_polls(farm: RunningFarm, uuid: str) -> Rate:
    """Reads of one job."""
    request = (_head("GET", f"/v1/jobs/{uuid}", farm.url, farm.api_key) + "\r\n").encode()
    return _rate("polls", farm, lambda _number: request, 200)
