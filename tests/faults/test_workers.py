"""Workers that are told to stop, die, hang or find the disk full: every job ends once, and no other pays for it."""

from __future__ import annotations

import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest
from pydantic import SecretStr

from fluxfarm.settings import Settings
from storage.queue import Queue
from tests.e2e.farms import wait_for
from tests.faults.sites import LEASE, Site
from tests.making import QUEUE

pytestmark = pytest.mark.xdist_group("faults-workers")


def test_a_worker_that_is_told_to_stop_finishes_its_job_and_leaves_the_next_one(site: Site) -> None:
    """F3"""
    current = site.accept("the current one", steps=40)
    site.running(current)
    waiting = [site.accept("the next one", steps=5) for _ in range(3)]
    time.sleep(0.5)  # its other slots hold tickets by now, and wait for the device
    site.worker.send(signal.SIGTERM)
    assert site.worker.wait(15) == 0, site.said()
    assert [site.record(uuid)["attempts"] for uuid in waiting] == [[], [], []]
    site.succeeds(current, attempts=1)
    site.worker.start()
    for uuid in waiting:
        site.succeeds(uuid, attempts=1)


@pytest.mark.parametrize(
    "signals",
    [(signal.SIGTERM, signal.SIGKILL), (signal.SIGQUIT,), (signal.SIGINT, signal.SIGINT), (signal.SIGTERM,) * 2],
    ids=["TERM-KILL", "QUIT", "INT-INT", "TERM-TERM"],
)
def test_a_worker_that_is_hurried_loses_nothing(site: Site, signals: tuple[signal.Signals, ...]) -> None:
    """F3, F4"""
    job = site.accept("hurried", steps=50)
    site.running(job)
    for number in signals:
        site.worker.send(number)
        time.sleep(0.3)
    site.worker.wait(15)
    site.worker.start()
    site.succeeds(job)


def test_a_ticket_that_dies_with_its_worker_is_sent_again(site: Site) -> None:
    """F5: popped by a frozen worker, which is then killed: nobody ever claimed the job."""
    site.worker.send(signal.SIGSTOP)
    job = site.accept("popped")
    with site.redis() as redis:
        wait_for(lambda: redis.llen(QUEUE) == 0)
    assert site.record(job)["status"] == "QUEUED"
    site.worker.kill()
    site.worker.start()
    site.succeeds(job, attempts=1)


def test_a_ticket_that_comes_six_times_is_one_render(site: Site) -> None:
    """F10"""
    slow = site.accept("first", steps=30)
    site.running(slow)
    job = site.accept("doubled", steps=10)
    queue = Queue(Settings(redis_url=SecretStr(site.valkey.url)))
    assert all(queue.enqueue(QUEUE, UUID(job)) for _ in range(5))
    queue.close()
    site.succeeds(slow, attempts=1)
    site.succeeds(job, attempts=1)
    with site.redis() as redis:
        wait_for(lambda: redis.llen(QUEUE) == 0)
    assert site.told(job) == ["RUNNING", "SUCCESS"]


def together(site: Site) -> list[str]:
    """Four jobs of one shape that come while the worker is frozen, so that it finds them all at once."""
    site.worker.send(signal.SIGSTOP)
    batch = [site.accept(f"together {n}", steps=40) for n in range(4)]
    site.worker.send(signal.SIGCONT)
    return batch


def test_a_worker_that_dies_in_the_middle_of_a_batch_costs_each_of_its_jobs_one_more_start(site: Site) -> None:
    """F1: four jobs in one call, SIGKILL: each is rendered again exactly once, and alone."""
    batch = together(site)
    for uuid in batch:
        site.running(uuid)
    site.worker.kill()
    site.worker.start()
    for position, uuid in enumerate(batch):
        lost, won = site.succeeds(uuid, attempts=2)["attempts"]
        assert (lost["error"]["code"], won["batch"]) == ("worker_lost", None)
        assert lost["batch"] == {"position": position, "size": 4, "leader": batch[0]}
        assert len(site.objects(uuid)) == 1


def test_a_worker_that_is_told_to_stop_delivers_its_whole_batch(site: Site) -> None:
    """F3"""
    batch = together(site)
    site.running(batch[-1])
    site.worker.send(signal.SIGTERM)
    assert site.worker.wait(15) == 0, site.said()
    for uuid in batch:
        assert site.succeeds(uuid, attempts=1)["attempts"][0]["batch"]["size"] == 4


def test_a_job_that_kills_its_worker_is_given_up_and_the_others_go_on(site: Site) -> None:
    """F12"""
    poison = site.accept("dies")
    others = [site.accept("bystander") for _ in range(3)]

    def over() -> bool:
        site.worker.start()
        return bool(site.record(poison)["status"] == "FAILED")

    wait_for(over, 40)
    record = site.record(poison)
    assert (record["error"]["code"], record["error"]["retryable"]) == ("poison", False)
    assert [attempt["error"]["code"] for attempt in record["attempts"]] == ["worker_lost", "worker_lost", "poison"]
    for uuid in others:
        site.succeeds(uuid)
    site.mend()
    time.sleep(LEASE)
    assert len(site.record(poison)["attempts"]) == 3


def test_a_render_that_stands_still_ends_its_worker(site: Site) -> None:
    """F13: the watchdog ends the process, the lease frees the job."""
    job = site.accept("hangs once", steps=2)
    assert site.worker.wait(20) != 0
    assert "hangs once" not in site.said()
    site.worker.start()
    site.succeeds(job, attempts=2)


def test_a_crash_between_upload_and_commit_leaves_one_result(site: Site) -> None:
    """F15: the pictures of the attempt that died are swept."""
    job = site.accept("dies before the commit once", n=2)
    site.worker.wait(20)
    assert len(site.objects(job)) == 2
    site.worker.start()
    record = site.succeeds(job, attempts=2)
    assert len(record["temporaryUrls"]) == 2
    wait_for(lambda: len(site.objects(job)) == 2, 8 * LEASE)
    assert all(f"/{job}/2/" in str(path) for path in site.objects(job))


def test_an_attempt_that_is_finished_keeps_its_pictures_whatever_it_believes(site: Site) -> None:
    """The commit happened, its answer was lost, and the database stays away for longer than the lease."""
    job = site.accept("loses the answer")
    site.succeeds(job, attempts=1)
    time.sleep(2 * LEASE)
    record = site.succeeds(job, attempts=1)
    assert len(site.objects(job)) == 1
    assert site.get(record["temporaryUrl"].removeprefix(site.url)).status_code == 200


@contextmanager
def file_limit(pid: int, size: int) -> Iterator[None]:
    """What a full disk does to a process: writes beyond ``size`` bytes of a file fail."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can limit another process")
def test_a_full_disk_postpones_and_leaves_no_half_file(site: Site) -> None:
    with file_limit(site.worker.pid, 60_000):
        job = site.accept("too large for the disk", size="256x256")
        wait_for(lambda: "store_awaited" in site.worker.log.read_text())
        assert site.record(job)["status"] == "RUNNING"
        assert site.objects(job) == []
    site.succeeds(job, attempts=1)
    (picture,) = site.objects(job)
    assert picture.stat().st_size > 100_000
    assert not list((site.folder / "data" / "objects" / ".partial").iterdir())
