"""A broker that restarts, dies, forgets, fills up, hangs or is cut off: every job that got its 202 still ends.

They also guard each new version of Celery, kombu and redis-py: with some, a worker exits or never consumes again.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from redis import Redis
from redis.exceptions import RedisError

from tests.e2e.farms import FINAL, wait_for
from tests.faults.sites import BACK, Site, running, servers
from tests.faults.wires import Wire, wire_to_port
from tests.making import QUEUE

pytestmark = pytest.mark.xdist_group("faults-broker")


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Wire]]:
    """A farm whose worker reaches the broker by a wire of its own."""
    folder = tmp_path_factory.mktemp("wired")
    with servers(folder) as site:
        broker = urlsplit(site.valkey.url)
        assert broker.port is not None
        with wire_to_port(broker.port) as wire:
            url = site.valkey.url.replace(f":{broker.port}/", f":{wire.port}/")
            with running(folder, site=site, worker={"REDIS_URL": url}):
                yield site, wire


@pytest.fixture(scope="module")
def whole(wired: tuple[Site, Wire]) -> Site:
    return wired[0]


def restart(site: Site) -> None:
    site.valkey.stop()
    site.valkey.start()


def kill(site: Site) -> None:
    site.kill_valkey()
    site.valkey.start()


def cut_clients(site: Site) -> None:
    for _ in range(5):
        with Redis.from_url(site.valkey.url) as redis, suppress(RedisError):
            redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        time.sleep(0.1)


def stay_away(site: Site) -> None:
    site.kill_valkey()
    time.sleep(4)
    site.valkey.start()


@pytest.mark.parametrize("fault", [restart, kill, cut_clients, stay_away])
def test_the_worker_consumes_again(site: Site, fault: Callable[[Site], None]) -> None:
    """F6: idle, then busy; the process is the same all the time, and no job is rendered twice."""
    before = site.worker.pid
    back = time.monotonic()
    if fault is not stay_away:
        fault(site)
        site.succeeds(site.accept("after an idle fault"), attempts=1)
    busy = [site.accept("busy", steps=20) for _ in range(4)]
    site.running(busy[0])
    fault(site)
    for uuid in busy:
        site.succeeds(uuid, attempts=1)
    site.succeeds(site.accept("after a busy fault"), attempts=1)
    assert time.monotonic() - back < 2 * BACK
    assert site.worker.alive, site.said()
    assert site.worker.pid == before


def test_a_broker_that_forgets_everything_loses_no_job(site: Site) -> None:
    """F8: FLUSHALL under queued jobs."""
    slow = site.accept("slow", steps=50, n=3)  # longer than it takes to post the others
    site.running(slow)
    jobs = [site.accept("forgotten") for _ in range(8)]
    with site.redis() as redis:
        assert redis.llen(QUEUE) > 0
        redis.flushall()
    for uuid in (slow, *jobs):
        site.succeeds(uuid, attempts=1)


def test_a_full_broker_keeps_nobody_from_posting(site: Site) -> None:
    """Memory at its limit and noeviction: every write to it fails."""
    with site.redis() as redis:
        redis.config_set("maxmemory", "1")
        try:
            started = time.monotonic()
            jobs = [site.accept("while it is full") for _ in range(3)]
            assert time.monotonic() - started < 3
            time.sleep(1.5)
            assert site.worker.alive
        finally:
            redis.config_set("maxmemory", "0")
    for uuid in jobs:
        site.succeeds(uuid, attempts=1)


def test_a_worker_can_start_while_the_broker_is_full(site: Site) -> None:
    with site.redis() as redis:
        site.worker.kill()
        redis.config_set("maxmemory", "1")
        try:
            job = site.accept("while it is full")
            site.worker.start()
            time.sleep(3)
        finally:
            redis.config_set("maxmemory", "0")

    def supervised() -> bool:
        site.worker.start()  # should it have given up
        return site.record(job)["status"] in FINAL

    wait_for(supervised, BACK)
    site.succeeds(job, attempts=1)


def test_posting_without_a_broker(site: Site) -> None:
    """F9: down."""
    site.kill_valkey()
    jobs = []
    for _ in range(3):
        started = time.monotonic()
        jobs.append(site.accept("the broker is down"))
        assert time.monotonic() - started < 1.0
    site.valkey.start()
    for uuid in jobs:
        site.succeeds(uuid, attempts=1)


def test_posting_beside_a_broker_that_hangs(site: Site) -> None:
    """F9: frozen, so that connections stand and nothing answers; the tickets may arrive later all the same."""
    assert site.valkey.pid is not None
    os.kill(site.valkey.pid, signal.SIGSTOP)
    try:
        jobs = []
        for _ in range(3):
            started = time.monotonic()
            jobs.append(site.accept("the broker hangs"))
            assert time.monotonic() - started < 1.2
    finally:
        os.kill(site.valkey.pid, signal.SIGCONT)
    for uuid in jobs:
        site.succeeds(uuid, attempts=1)


def test_a_way_to_the_broker_that_goes_dead_is_found_out(site: Site, wired: tuple[Site, Wire]) -> None:
    """F7: half-open connections; nobody says goodbye, and what was sent is lost."""
    _, wire = wired
    before = site.worker.pid
    assert wire.freeze() > 0
    frozen_at = time.monotonic()
    job = site.accept("after the freeze")
    site.succeeds(job, attempts=1)
    assert time.monotonic() - frozen_at < 15 + 5  # 15 to consume again, and the wait for the lost ticket
    assert site.worker.alive
    assert site.worker.pid == before
