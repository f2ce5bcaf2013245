"""A database that stops, restarts, hangs, is locked or cuts its clients, while jobs are posted and rendered."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

from tests.e2e.farms import wait_for
from tests.faults.sites import BACK, LEASE, Site, running, servers
from tests.faults.wires import Wire, wire_to_socket

pytestmark = pytest.mark.xdist_group("faults-database")
THREADS = 4  #: of the API


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Wire]]:
    """A farm that reaches its database over TCP."""
    folder = tmp_path_factory.mktemp("wired")
    with servers(folder) as site:
        path = site.sql("SELECT current_setting('unix_socket_directories')")[0][0].strip('"') + "/.s.PGSQL.5432"
        url = "postgresql://postgres@127.0.0.1:{port}/postgres"
        with (
            wire_to_socket(path) as wire,
            running(
                folder,
                site=site,
                environment={"DATABASE_URL": url.format(port=wire.port), "FLUXFARM_API_THREADS": str(THREADS)},
            ) as farm,
        ):
            yield farm, wire


@pytest.fixture(scope="module")
def whole(wired: tuple[Site, Wire]) -> Site:
    return wired[0]


def test_a_short_absence_ends_in_a_commit(site: Site) -> None:
    """F16: shorter than the lease; the render goes on and its finish waits for the database."""
    job = site.accept("short absence", steps=50)
    site.running(job)
    site.restart_postgres()
    site.succeeds(job)
    site.succeeds(site.accept("afterwards"), attempts=1)


def test_tickets_that_are_taken_meanwhile_are_not_lost(site: Site) -> None:
    """No scheduler runs that could send them again: the worker waits with them for the database."""
    site.worker.send(signal.SIGSTOP)
    jobs = [site.accept("taken meanwhile") for _ in range(4)]
    site.scheduler.send(signal.SIGSTOP)
    site.stop_postgres()
    site.worker.send(signal.SIGCONT)
    time.sleep(1)
    site.postgres.start()
    site.all_succeed(jobs, BACK / 2)


def test_a_long_absence_ends_in_a_second_attempt(site: Site) -> None:
    """F16: longer than the lease; the worker fences itself and its job is rendered again."""
    job = site.accept("long absence", steps=40)
    site.running(job)
    site.stop_postgres()
    time.sleep(LEASE + 1.5)
    site.postgres.start()
    record = site.succeeds(job)
    assert len(record["attempts"]) <= 2


def cut_backends(site: Site) -> None:
    for _ in range(5):
        site.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        time.sleep(0.2)


def kill(site: Site) -> None:
    assert site.postgres.process is not None
    site.postgres.process.kill()
    site.postgres.process.wait(10)
    site.postgres.start()


@pytest.mark.parametrize("fault", [Site.restart_postgres, cut_backends, kill])
def test_no_acknowledged_job_is_lost_under_load(site: Site, fault: Callable[[Site], None]) -> None:
    """Four clients post all the while; each call gets a 202 or a 503 with ``Retry-After``, never silence."""
    until = time.monotonic() + BACK

    def client() -> list[str]:
        accepted: list[str] = []
        while len(accepted) < 15:
            started = time.monotonic()
            assert started < until, "it is not back in time"
            reply = site.post("under load")
            assert time.monotonic() - started < 5
            assert reply.status_code in {202, 503}, reply.text
            if reply.status_code == 202:
                accepted.append(reply.json()["aiRecord"]["uuid"])
            else:
                assert int(reply.headers["retry-after"]) >= 1
            time.sleep(0.05)
        return accepted

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client) for _ in range(4)]
        time.sleep(0.5)
        fault(site)
        accepted = [uuid for one in clients for uuid in one.result()]
    site.all_succeed(accepted)


def test_a_worker_that_starts_without_a_database_keeps_its_leases_later(site: Site) -> None:
    """Celery goes on when the start of a worker fails; a process that claims and never renews must not come of it."""
    site.worker.kill()
    site.stop_postgres()
    site.worker.start()
    time.sleep(2.5)
    site.postgres.start()
    site.worker.start()  # what a supervisor would do, should it have given up
    wait_for(lambda: site.is_ready(site.worker), BACK)
    job = site.accept("longer than a lease", steps=50)
    site.succeeds(job, attempts=1)


@contextmanager
def locked(site: Site) -> Iterator[None]:
    with psycopg.connect(site.postgres.url) as connection:
        connection.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


def test_when_every_connection_waits_callers_are_sent_away(site: Site) -> None:
    """Pool exhaustion: something holds a lock, and all threads of the API wait for it."""

    def post(_: int) -> tuple[int, str | None, float]:
        started = time.monotonic()
        reply = site.post()
        return reply.status_code, reply.headers.get("retry-after"), time.monotonic() - started

    callers = THREADS + 2
    with ThreadPoolExecutor(callers) as pool, locked(site):
        answers = list(pool.map(post, range(callers)))
    assert {status for status, _, _ in answers} == {503}
    assert all(retry for _, retry, _ in answers)
    assert max(seconds for *_, seconds in answers) < 10
    back = time.monotonic()
    site.succeeds(site.accept("afterwards"))
    assert time.monotonic() - back < BACK


def test_a_database_that_falls_silent_is_a_503_and_not_a_hang(site: Site, wired: tuple[Site, Wire]) -> None:
    """Over TCP, and nothing comes back, not even an end: what a lost route or a frozen host looks like."""
    _, wire = wired
    site.succeeds(site.accept("before"), attempts=1)
    time.sleep(1.5)
    wire.block()
    try:
        for _ in range(2):
            started = time.monotonic()
            reply = site.post()
            assert reply.status_code == 503
            assert reply.headers["retry-after"]
            assert time.monotonic() - started < 5.5
    finally:
        wire.clear()
    back = time.monotonic()
    wait_for(site.renders, BACK)
    assert time.monotonic() - back < BACK
