"""Accepted jobs a second and polls a second of one API process; keep-alive connections on loopback."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from fluxfarm.catalog import KLEIN_SMALL

CONNECTIONS = 16
REQUESTS = 3_000


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests a second and the time of one, in milliseconds."""

    name: str
    per_second: float
    p50: float
    p99: float


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


def _rate(name: str, url: str, message: Callable[[int], bytes], expected: int) -> Rate:
    started = time.perf_counter()
    times = sorted(asyncio.run(_load(url, message, expected)))
    seconds = time.perf_counter() - started
    return Rate(name, len(times) / seconds, 1000 * times[len(times) // 2], 1000 * times[int(len(times) * 0.99)])


def _head(method: str, path: str, url: str, key: str) -> str:
    return f"{method} {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nAuthorization: Bearer {key}\r\n"


def measure_posts(url: str, key: str) -> Rate:
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
        head = _head("POST", "/v1/jobs", url, key)
        return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    return _rate("jobs accepted", url, message, 202)


def measure_polls(url: str, key: str, uuid: str) -> Rate:
    """Reads of one job."""
    request = (_head("GET", f"/v1/jobs/{uuid}", url, key) + "\r\n").encode()
    return _rate("polls", url, lambda _number: request, 200)
