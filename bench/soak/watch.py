"""Looks at the farm while it is tormented: does it answer, what is open, what do its processes hold."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

import httpx
import psycopg

from bench.soak.house import House
from bench.soak.load import Journal

PROBES: Final = 0.5  #: seconds between two
ANSWERED: Final = 2.0  #: seconds in which a probe must be
SAMPLES: Final = 5.0  #: seconds between two
OPEN: Final = "SELECT count(*) FROM jobs WHERE status IN ('QUEUED', 'RUNNING')"
CONNECTIONS: Final = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Sample:
    """What one process held at a moment: bytes, open files, threads."""

    at: float
    part: str
    pid: int
    memory: int
    files: int
    threads: int


@dataclass
class Seen:
    """All that was seen; moments are seconds of the wall clock."""

    probes: list[tuple[float, bool]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    open_jobs: list[tuple[float, int]] = field(default_factory=list)
    connections: list[tuple[float, int]] = field(default_factory=list)

    def serving(self, since: float, until: float) -> float:
        """The share of the probes that were answered in time."""
        found = [good for at, good in self.probes if since <= at < until]
        return sum(found) / len(found) if found else float("nan")

    def longest_silence(self, since: float, until: float) -> float:
        """The longest time in seconds in which no probe was answered."""
        good = [since, *(at for at, good in self.probes if good and since <= at < until), until]
        return max(after - before for before, after in pairwise(good))


async def probe(house: House, key: str, seen: Seen, ended: asyncio.Event) -> None:
    """Ask as a caller that polls: the list of the newest job, which the database must answer."""
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=house.url, headers=headers, timeout=ANSWERED, trust_env=False) as http:
        while not ended.is_set():
            began, good = time.time(), False
            try:
                good = (await http.get("/v1/jobs", params={"limit": 1})).status_code == 200
            except httpx.HTTPError:
                good = False
            seen.probes.append((began, good))
            await asyncio.sleep(max(0.0, began + PROBES - time.time()))


async def sample(house: House, journal: Journal, seen: Seen, ended: asyncio.Event) -> None:
    """Note what the processes hold and how many jobs are open."""
    while not ended.is_set():
        await asyncio.to_thread(_sample, house, journal, seen)
        await asyncio.sleep(SAMPLES)


def _sample(house: House, journal: Journal, seen: Seen) -> None:
    now = time.time()
    for part, pid in house.pids().items():
        found = _held(now, part, pid)
        if found is not None:
            seen.samples.append(found)
    try:
        journal.open_jobs = int(house.sql(OPEN)[0][0])
        seen.open_jobs.append((now, journal.open_jobs))
        seen.connections.append((now, int(house.sql(CONNECTIONS)[0][0])))
    except psycopg.Error:
        return


def _held(now: float, part: str, pid: int) -> Sample | None:
    folder = Path(f"/proc/{pid}")
    try:
        memory = int((folder / "statm").read_text(encoding="ascii").split()[1]) * PAGE
        files = len(list((folder / "fd").iterdir()))
        threads = len(list((folder / "task").iterdir()))
    except OSError:
        return None
    return Sample(now, part, pid, memory, files, threads)
