"""How soon the farm renders at its old rate after each outage has been repaired; nobody helps it.

``python -m bench.outages`` takes about six minutes. The farm is that of ``tests/faults``: every part but the pixels is
the real one, with leases and patience as they are shipped; a picture takes ``RENDER`` seconds and no processor, as on
a GPU.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from rich.console import Console
from rich.table import Table

from tests.faults.launch import STEP
from tests.faults.sites import Site, running
from tests.faults.test_store import Way, spoiled_store
from tests.making import MODEL

RENDER: Final = 2 * STEP  #: seconds
QUEUED: Final = 700  #: jobs that wait when an outage begins
BEFORE: Final = 8.0  #: seconds over which a rate is taken
AWAY: Final = 8.0  #: seconds that an outage lasts
LONGEST: Final = 60.0  #: seconds that the farm is given after the repair
ENOUGH: Final = 0.95  #: of the old rate
SHIPPED: Final = {
    "FLUXFARM_LEASE": "30",
    "FLUXFARM_LEASE_RENEWAL": "10",
    "FLUXFARM_SWEEP_INTERVAL": "5",
    "FLUXFARM_STEP_TIMEOUT": "120",
}
OPTIONS: Final = {"worker": "--patience=10", "scheduler": "--patience=10"}
BODY: Final = {
    "type": "IMAGE_GENERATOR",
    "model": MODEL,
    "lane": "bulk",
    "promptObject": {"prompt": "an outage", "size": "64x64", "num_inference_steps": 2, "output_format": "png"},
}
FINISHED: Final = """
    SELECT extract(epoch FROM finished_at) FROM jobs
     WHERE status = 'SUCCESS' AND finished_at > to_timestamp(%s) ORDER BY finished_at
"""


@dataclass(frozen=True, slots=True)
class Recovery:
    """Jobs a second before the outage and after it, and how soon after the repair the second rate began."""

    outage: str
    before: float
    after: float
    seconds: float

    @property
    def ratio(self) -> float:
        """What came back of the rate."""
        return self.after / self.before if self.before else float("nan")


Outage = Callable[[Site, Way], AbstractContextManager[None]]


@contextmanager
def _database_stopped(site: Site, _way: Way) -> Iterator[None]:
    site.stop_postgres()
    yield
    site.postgres.start()


@contextmanager
def _database_frozen(site: Site, _way: Way) -> Iterator[None]:
    assert site.postgres.process is not None
    pids = [site.postgres.process.pid, *(row[0] for row in site.sql("SELECT pid FROM pg_stat_activity"))]
    for pid in pids:
        _signal(pid, signal.SIGSTOP)
    yield
    for pid in pids:
        _signal(pid, signal.SIGCONT)


@contextmanager
def _connections_cut(site: Site, _way: Way) -> Iterator[None]:
    site.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    yield


@contextmanager
def _broker_killed(site: Site, _way: Way) -> Iterator[None]:
    site.kill_valkey()
    yield
    site.valkey.start()


@contextmanager
def _broker_frozen(site: Site, _way: Way) -> Iterator[None]:
    assert site.valkey.pid is not None
    os.kill(site.valkey.pid, signal.SIGSTOP)
    yield
    os.kill(site.valkey.pid, signal.SIGCONT)


@contextmanager
def _broker_emptied(site: Site, _way: Way) -> Iterator[None]:
    with site.redis() as redis:
        redis.flushall()
    yield


@contextmanager
def _broker_full(site: Site, _way: Way) -> Iterator[None]:
    with site.redis() as redis:
        redis.config_set("maxmemory", "1")
        yield
        redis.config_set("maxmemory", "0")


@contextmanager
def _store_refuses(_site: Site, way: Way) -> Iterator[None]:
    way.down = True
    yield
    way.down = False


@contextmanager
def _store_slow(_site: Site, way: Way) -> Iterator[None]:
    way.delay = 4.0
    yield
    way.delay = 0.0


@contextmanager
def _store_silent(_site: Site, way: Way) -> Iterator[None]:
    way.lost = 10_000
    yield
    way.lost = 0
    way.end.set()
    way.end.clear()


def killed(name: str) -> Outage:
    """SIGKILL of one process of the farm, and a supervisor that starts it again."""

    @contextmanager
    def outage(site: Site, _way: Way) -> Iterator[None]:
        site.programs[name].kill()
        yield
        site.programs[name].start()

    return outage


OUTAGES: Final[dict[str, Outage]] = {
    "PostgreSQL: immediate stop": _database_stopped,
    "PostgreSQL: frozen": _database_frozen,
    "PostgreSQL: every connection cut": _connections_cut,
    "Valkey: killed": _broker_killed,
    "Valkey: frozen": _broker_frozen,
    "Valkey: FLUSHALL": _broker_emptied,
    "Valkey: full": _broker_full,
    "store: answers 503": _store_refuses,
    "store: 4 s an upload": _store_slow,
    "store: uploads vanish": _store_silent,
    "worker: killed": killed("worker"),
    "scheduler: killed": killed("scheduler"),
    "API: killed": killed("api"),
}


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def fill(site: Site) -> None:
    """Let enough jobs wait that the worker never runs dry."""
    waiting = site.sql("SELECT count(*) FROM jobs WHERE status = 'QUEUED'")[0][0]
    with httpx.Client(base_url=site.url, headers=site.headers, timeout=40, trust_env=False) as client:
        for _ in range(QUEUED - waiting):
            client.post("/v1/jobs", json=BODY).raise_for_status()


def measure(site: Site, way: Way, name: str) -> Recovery:
    """One outage."""
    fill(site)
    time.sleep(BEFORE + 2)
    began = time.time()
    with OUTAGES[name](site, way):
        time.sleep(AWAY)
    repaired = time.time()
    before = len([end for end in _ends(site, began - BEFORE) if end <= began]) / BEFORE
    best = Recovery(name, before, 0.0, float("nan"))
    if not before:
        raise RuntimeError(f"nothing was rendered before: {site.said()}")
    while time.time() < repaired + LONGEST:
        time.sleep(1)
        ends, now = _ends(site, repaired), time.time()
        starts = (repaired + 0.5 * n for n in range(int(2 * LONGEST)))
        for start in starts:
            if start + BEFORE > now:
                break
            rate = sum(start <= end < start + BEFORE for end in ends) / BEFORE
            if rate > best.after:
                best = Recovery(name, before, rate, start - repaired)
            if best.ratio >= ENOUGH:
                return best
    return best


def _ends(site: Site, since: float) -> list[float]:
    return [float(row[0]) for row in site.sql(FINISHED, since)]


@contextmanager
def site_with_store() -> Iterator[tuple[Site, Way]]:
    """The farm, before an S3 server whose way can be spoiled."""
    with tempfile.TemporaryDirectory(prefix="fluxfarm-bench-") as name:
        folder = Path(name)
        with (
            spoiled_store(folder) as (environment, way),
            running(folder, environment=environment | SHIPPED, options=OPTIONS) as site,
        ):
            yield site, way


def main(wanted: list[str]) -> int:
    """Measure the outages whose names hold one of the words; 1 when a rate did not come back."""
    console = Console()
    table = Table(
        "outage", "jobs/s before", "after", "from, s after the repair", "after / before", title="Back after an outage"
    )
    worst = 1.0
    with site_with_store() as (site, way):
        for name in OUTAGES:
            if wanted and not any(word in name for word in wanted):
                continue
            found = measure(site, way, name)
            console.print(name, f"{found.ratio:.2f} after {found.seconds:.1f} s")
            figures = (f"{one:.1f}" for one in (found.before, found.after, found.seconds))
            table.add_row(name, *figures, f"{found.ratio:.2f}")
            worst = min(worst, found.ratio)
    console.print(table)
    return int(worst < ENOUGH)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
