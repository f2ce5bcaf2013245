"""Two schedulers at once, and processes whose clocks are two hours off: the database's clock rules, nothing doubles."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.e2e.farms import wait_for
from tests.faults.sites import LEASE, Site, running
from tests.making import QUEUE

pytestmark = pytest.mark.xdist_group("faults-schedulers")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    clocks = {"worker": "--clock=7200", "scheduler": "--clock=-7200", "scheduler-2": "--clock=7200"}
    with running(tmp_path_factory.mktemp("site"), options=clocks) as site:
        yield site


def test_a_render_longer_than_its_lease_is_left_alone(site: Site) -> None:
    job = site.accept("long", steps=50)
    site.succeeds(job, attempts=1)


def test_a_dead_worker_is_found_once(site: Site) -> None:
    jobs = [site.accept("interrupted", steps=30) for _ in range(3)]
    site.running(jobs[0])
    site.worker.kill()
    site.worker.start()
    for uuid in jobs:
        site.succeeds(uuid)
    assert len(site.record(jobs[0])["attempts"]) == 2


def test_two_sweepers_send_no_more_than_the_gap(site: Site) -> None:
    """F17: the broker forgot everything, many jobs wait, and nobody takes tickets while both look for lost ones."""
    site.worker.send(signal.SIGSTOP)
    ((slots,),) = site.sql("SELECT sum(slots) FROM workers WHERE heartbeat_at > now() - interval '30 seconds'")
    window = 2 * slots
    jobs = [site.accept("waiting") for _ in range(window + 12)]
    with site.redis() as redis:
        redis.flushall()
        end = time.monotonic() + 2.5 * LEASE
        depths = []
        while time.monotonic() < end:
            depths.append(int(redis.llen(QUEUE)))
            time.sleep(0.1)
    site.worker.send(signal.SIGCONT)
    assert 0 < max(depths) <= window
    for uuid in jobs:
        site.succeeds(uuid, attempts=1)
    with site.redis() as redis:
        wait_for(lambda: redis.llen(QUEUE) == 0)
