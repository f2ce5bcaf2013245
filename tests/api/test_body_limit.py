"""Bodies over the cap, over a real socket: declared, chunked and lying."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

from api.main import create_app
from fluxfarm.settings import Settings
from storage.database import Database
from tests.api.samples import body, rows

LIMIT = 64 * 1024


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings.model_copy(update={"body_limit": LIMIT}))


def padded(size: int) -> bytes:
    text = json.dumps(body({"prompt": "a fox"}))
    return (text + " " * (size - len(text))).encode()


def test_the_cap_counts_bytes(web: httpx.Client, database: Database) -> None:
    headers = {"Content-Type": "application/json"}
    refused = web.post("/v1/jobs", content=padded(LIMIT + 1), headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (413, "payload_too_large")
    assert rows(database)["jobs"] == 0
    assert web.post("/v1/jobs", content=padded(LIMIT), headers=headers).status_code == 202


def test_a_chunked_body_is_counted(web: httpx.Client, database: Database) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * (LIMIT // 8)

    refused = web.post("/v1/jobs", content=chunks(), headers={"Content-Type": "application/json"})
    assert (refused.status_code, refused.json()["code"]) == (413, "payload_too_large")
    assert rows(database)["jobs"] == 0


@pytest.mark.parametrize("declared", ["10", "99999999999999999999999999", "-5", "abc"])
def test_a_length_that_lies(server: str, api_key: str, database: Database, declared: str) -> None:
    parts = urlsplit(server)
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api_key}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {declared}\r\n\r\n"
    )
    with socket.create_connection((str(parts.hostname), parts.port or 0), timeout=5) as wire:
        wire.sendall(head.encode() + padded(2 * LIMIT)[:1000])
        reply = wire.recv(4096)
    assert reply.split(b" ")[1] in {b"400", b"413"}, reply
    assert rows(database)["jobs"] == 0


def test_a_caller_that_goes_away_does_no_harm(server: str, web: httpx.Client, api_key: str) -> None:
    parts = urlsplit(server)
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api_key}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    )
    with socket.create_connection((str(parts.hostname), parts.port or 0), timeout=5) as wire:
        wire.sendall(head.encode())
    assert web.get("/healthz").status_code == 200
    assert web.get("/v1/jobs").json()["data"] == []
