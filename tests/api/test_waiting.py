"""Long polls and event streams, against a real server on loopback."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from fluxfarm.client_events import JobEvent, parse
from fluxfarm.errors import DatabaseUnavailable
from storage.database import Database
from storage.previews import Preview
from storage.records import Job
from tests.api.samples import Hand, body


def accept(web: httpx.Client) -> str:
    return str(web.post("/v1/jobs", json=body()).raise_for_status().json()["aiRecord"]["uuid"])


@contextmanager
def later(work: Callable[[], Any], delay: float = 0.3) -> Iterator[Future[float]]:
    """Does something while the test waits; the result is when it was done."""

    def act() -> float:
        time.sleep(delay)
        work()
        return time.monotonic()

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(act)


@pytest.fixture(autouse=True)
def listening(app: FastAPI, server: str) -> None:
    assert server
    deadline = time.monotonic() + 5
    while not app.state.farm.changes.listening and time.monotonic() < deadline:
        time.sleep(0.01)
    assert app.state.farm.changes.listening


def test_a_long_poll_wakes_when_the_job_is_over(web: httpx.Client, hand: Hand) -> None:
    uuid = accept(web)
    with later(lambda: hand.finish(hand.claim(uuid))) as done:
        reply = web.get(f"/v1/jobs/{uuid}?wait=20")
        woke = time.monotonic()
    assert reply.json()["aiRecord"]["status"] == "SUCCESS"
    assert woke - done.result() < 1.0  # it was told: without notifications it looks again after 2 s only


def test_a_long_poll_ends_with_its_time(web: httpx.Client) -> None:
    uuid = accept(web)
    started = time.monotonic()
    reply = web.get(f"/v1/jobs/{uuid}?wait=1")
    assert reply.json()["aiRecord"]["status"] == "QUEUED"
    assert 0.9 < time.monotonic() - started < 2.0
    assert web.get(f"/v1/jobs/{uuid}?wait=61").json()["param"] == "wait"


def test_a_long_poll_ends_when_the_job_is_erased(web: httpx.Client) -> None:
    uuid = accept(web)
    with later(lambda: web.delete(f"/v1/jobs/{uuid}")):
        assert web.get(f"/v1/jobs/{uuid}?wait=20").status_code == 404


def test_a_long_poll_outlasts_a_moment_without_the_database(
    web: httpx.Client, app: FastAPI, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid, tried, read = accept(web), [], app.state.farm.polls.read

    async def away_at_first(tenant_id: UUID, uuid: UUID) -> Job:
        tried.append(uuid)
        if len(tried) == 1:
            hand.finish(hand.claim(str(uuid)))
            raise DatabaseUnavailable("Away.")
        found: Job = await read(tenant_id, uuid)
        return found

    monkeypatch.setattr(app.state.farm.polls, "read", away_at_first)
    reply = web.get(f"/v1/jobs/{uuid}?wait=10")
    assert (reply.status_code, reply.json()["aiRecord"]["status"]) == (200, "SUCCESS")
    tried.clear()
    other = accept(web)
    assert web.get(f"/v1/jobs/{other}?wait=1").status_code == 503, "there is no time for another look"


def test_prefer_wait(web: httpx.Client, hand: Hand, database: Database) -> None:
    def render() -> None:
        with database.transaction() as session:
            uuid = session.execute(text("SELECT uuid FROM jobs WHERE status = 'QUEUED'")).scalar_one()
        hand.finish(hand.claim(uuid))

    with later(render):
        reply = web.post("/v1/jobs", json=body(), headers={"Prefer": "respond-async, wait=20"})
    assert reply.status_code == 200
    assert reply.headers["preference-applied"] == "wait=20"
    assert reply.json()["aiRecord"]["status"] == "SUCCESS"
    reply = web.post("/v1/jobs", json=body(), headers={"Prefer": "wait=1"})
    assert (reply.status_code, reply.json()["aiRecord"]["status"]) == (202, "QUEUED")
    reply = web.post("/v1/jobs", json=body(), headers={"Prefer": "wait=soon"})
    assert "preference-applied" not in reply.headers


def test_a_broken_listener_connects_again(web: httpx.Client, app: FastAPI, hand: Hand, database: Database) -> None:
    uuid = accept(web)

    def cut_then_finish() -> None:
        with database.transaction() as session:
            cut = session.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            )
            assert len(cut.all()) == 1
        hand.finish(hand.claim(uuid))

    with later(cut_then_finish) as done:
        reply = web.get(f"/v1/jobs/{uuid}?wait=20")
        woke = time.monotonic()
    assert reply.json()["aiRecord"]["status"] == "SUCCESS"
    assert woke - done.result() < 3
    deadline = time.monotonic() + 5
    while not app.state.farm.changes.listening and time.monotonic() < deadline:
        time.sleep(0.02)
    assert app.state.farm.changes.listening


def test_a_hundred_open_polls_slow_nobody_down(web: httpx.Client, server: str, hand: Hand) -> None:
    uuids = [accept(web) for _ in range(3)]
    threads_before = threading.active_count()
    pause, done = 0.8, []

    def finish(uuid: str) -> None:
        hand.finish(hand.claim(uuid))

    async def hold(client: httpx.AsyncClient, uuid: str) -> float:
        reply = await client.get(f"/v1/jobs/{uuid}?wait=20", headers=dict(web.headers))
        assert reply.json()["aiRecord"]["status"] == "SUCCESS"
        return time.monotonic()

    async def race() -> tuple[list[float], list[float], int]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=server, limits=limits, timeout=30, trust_env=False) as client:
            polls = [asyncio.create_task(hold(client, uuids[index % 3])) for index in range(100)]
            await asyncio.sleep(pause)
            quick: list[float] = []
            for path in ("/healthz", f"/v1/jobs/{uuids[0]}") * 10:
                started = time.monotonic()
                assert (await client.get(path, headers=dict(web.headers))).status_code == 200
                quick.append(time.monotonic() - started)
            threads = threading.active_count()
            for uuid in uuids:
                await asyncio.to_thread(finish, uuid)
            done.append(time.monotonic())
            return quick, await asyncio.gather(*polls), threads

    quick, woke, threads = asyncio.run(race())
    assert sorted(quick)[len(quick) // 2] < 0.2
    assert max(quick) < 1.5
    assert max(woke) - done[0] < 1.5
    assert threads - threads_before <= 45  # the pool of 40 may be warm, but no poll has a thread of its own


def follow(web: httpx.Client, uuid: str, **headers: str) -> list[JobEvent]:
    with web.stream("GET", f"/v1/jobs/{uuid}/events", headers=headers) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["cache-control"] == "no-store"
        return list(parse(reply.iter_bytes()))


def words(events: list[JobEvent]) -> list[str]:
    return [str(e.data.get("status") or e.data["step"]) for e in events]


def test_events_come_in_order_and_end_with_the_job(web: httpx.Client, hand: Hand) -> None:
    uuid = accept(web)

    def render() -> None:
        claimed = hand.claim(uuid)
        for step in range(1, 6):
            hand.report(claimed, step, 5)
        hand.finish(claimed)

    with later(render):
        seen = follow(web, uuid)
    assert words(seen) == ["QUEUED", "RUNNING", "1", "2", "3", "4", "5", "SUCCESS"]
    ids = [int(event.id) for event in seen]
    assert ids[0] == 0
    assert ids == sorted(set(ids))
    assert [event.kind for event in seen[:3]] == ["status", "status", "progress"]

    assert words(follow(web, uuid)) == words(seen)
    assert words(follow(web, uuid, **{"Last-Event-ID": str(ids[4])})) == ["4", "5", "SUCCESS"]
    assert words(follow(web, uuid, **{"Last-Event-ID": "0"})) == words(seen)[1:]
    assert follow(web, uuid, **{"Last-Event-ID": str(ids[-1])}) == []
    replayed = web.get(f"/v1/jobs/{uuid}/events?lastEventId={ids[-2]}")
    assert words(list(parse([replayed.content]))) == ["SUCCESS"]
    assert json.loads(replayed.text.split("data: ")[1].splitlines()[0]) == {"status": "SUCCESS"}


def test_previews_come_in_the_stream_of_a_job_that_asked(web: httpx.Client, app: FastAPI, hand: Hand) -> None:
    def preview(index: int) -> Preview:
        return Preview(attempt=1, n=0, index=index, step=index, steps=8, content_type="image/webp", body=b"picture")

    asked, silent = (str(web.post("/v1/jobs", json=body(previews=n)).json()["aiRecord"]["uuid"]) for n in (2, 0))
    assert web.post("/v1/jobs", json=body(previews=4)).json()["param"] == "previews"
    previews = app.state.farm.previews

    def render() -> None:
        for uuid in (silent, asked):
            claimed = hand.claim(uuid)
            previews.put(claimed.uuid, preview(0))
            previews.put(claimed.uuid, preview(1))
            hand.finish(claimed)

    with later(render):
        seen = follow(web, asked)
    shown = [event for event in seen if event.kind == "preview"]
    assert [event.data["index"] for event in shown] == [0, 1]
    assert shown[0].data["contentType"] == "image/webp"
    assert shown[0].data["image"] == "cGljdHVyZQ=="
    assert seen[-1].is_last
    assert "preview" not in {event.kind for event in follow(web, silent)}
    web.delete(f"/v1/jobs/{asked}").raise_for_status()
    assert not previews._redis.exists(f"preview:{asked}")


def test_a_stream_ends_when_its_job_is_erased(web: httpx.Client) -> None:
    uuid = accept(web)
    with later(lambda: web.delete(f"/v1/jobs/{uuid}")):
        assert words(follow(web, uuid)) == ["QUEUED"]


def test_a_silent_stream_says_that_it_lives(web: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.happenings.HEARTBEAT", 0.2)
    uuid = accept(web)
    with web.stream("GET", f"/v1/jobs/{uuid}/events") as reply:
        for line in reply.iter_lines():
            if line.startswith(":"):
                break
    assert line == ": still here"


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 30])
def test_a_bad_event_id(web: httpx.Client, last: str) -> None:
    uuid = accept(web)
    reply = web.get(f"/v1/jobs/{uuid}/events", headers={"Last-Event-ID": last})
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_field")


def test_head_of_a_stream_ends(web: httpx.Client) -> None:
    uuid = accept(web)
    reply = web.head(f"/v1/jobs/{uuid}/events")
    assert (reply.status_code, reply.content) == (200, b"")
