"""What is measured of each contestant: rate, latency, memory, what a crash costs, and who waits for whom."""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from bench.peers.contestants import BareLoop, Contestant, Fluxfarm, Order
from bench.peers.family import family
from fluxfarm.errors import FluxfarmError

CLIENTS: Final = 4
JOBS: Final = 40  #: of a round
SMALL: Final = (64, 2)  #: pixels a side, steps: as short a render as there is, so that what is around it shows
LONG: Final = (256, 8)  #: some hundred milliseconds
CRASHED: Final = 30  #: jobs that wait when the renderer is killed
PATIENCE: Final = 90.0  #: seconds in which what was accepted must be rendered after a kill
BACKLOG: Final = 60  #: jobs of somebody before another one comes
ASKED: Final = 5  #: pictures of the other


@dataclass(frozen=True, slots=True)
class Round:
    """Pictures a second, and the seconds of each call."""

    rate: float
    calls: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Crash:
    """What became of jobs whose renderer was killed; ``recovery`` is seconds until the next picture, None: never."""

    lost: int
    twice: int  #: finished once more; for the farm begun once more, which is never less
    recovery: float | None


@dataclass(frozen=True, slots=True)
class Wait:
    """Seconds that one user's picture took alone (the median), and behind another's backlog (the worst)."""

    alone: float
    behind: float


def one_round(peer: Contestant, number: int) -> Round:
    """``JOBS`` pictures for ``CLIENTS`` callers, each of which asks for the next one when it has the last."""
    calls: list[float] = []

    def call(index: int) -> None:
        began = time.perf_counter()
        peer.render(Order(number * 1000 + index, *SMALL))
        calls.append(time.perf_counter() - began)

    began = time.perf_counter()
    with ThreadPoolExecutor(1 if isinstance(peer, BareLoop) else CLIENTS) as pool:
        list(pool.map(call, range(JOBS)))
    return Round(JOBS / (time.perf_counter() - began), tuple(calls))


def crash(peer: Contestant, log: Path) -> Crash:
    """Kill what renders two seconds after ``CRASHED`` jobs came; nobody sends one again."""
    before = Counter(_drawn(log))
    ended: list[float] = []

    def call(index: int) -> bool:
        try:
            peer.render(Order(500_000 + index, *LONG))
        except (httpx.HTTPError, FluxfarmError):
            return False
        ended.append(time.monotonic())
        return True

    pool = ThreadPoolExecutor(CRASHED)
    calls: list[Future[bool]] = [pool.submit(call, index) for index in range(CRASHED)]
    time.sleep(2)
    killed = time.monotonic()
    peer.kill()
    done, _ = wait(calls, PATIENCE)
    pool.shutdown(wait=False, cancel_futures=True)
    came = sum(one.exception() is None and one.result() for one in done)
    drawn = Counter(_drawn(log)) - before
    later = [moment - killed for moment in ended if moment > killed]
    return Crash(
        lost=CRASHED - came,
        twice=peer.begun_again(CRASHED) if isinstance(peer, Fluxfarm) else sum(count - 1 for count in drawn.values()),
        recovery=min(later, default=None),
    )


def fairness(peer: Contestant) -> Wait:
    """Pictures of one user, before and while another one's backlog waits."""

    def ask(first: int) -> list[float]:
        times = []
        for index in range(ASKED):
            began = time.perf_counter()
            peer.render(Order(first + index, *LONG), urgent=True)
            times.append(time.perf_counter() - began)
        return times

    alone = statistics.median(ask(600_000))
    with ThreadPoolExecutor(BACKLOG) as pool:
        waiting = [pool.submit(peer.render, Order(610_000 + index, *LONG)) for index in range(BACKLOG)]
        time.sleep(1)
        behind = max(ask(620_000))  # where they stand in one line only the first one waits for the backlog
        wait(waiting)
    return Wait(alone, behind)


def memory(roots: Iterable[int]) -> float:
    """Megabytes (10^6) of the processes and all their descendants; what they share counts once."""
    return sum(_proportional(pid) for pid in family(roots)) * 1024 / 1e6


def _proportional(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)


def _drawn(log: Path) -> list[str]:
    return log.read_text(encoding="ascii").split() if log.exists() else []


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which ``share`` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def machine() -> str:
    """Cores and processor of this machine, in words."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    model = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "?")
    return f"{os.cpu_count()} cores ({model})"
