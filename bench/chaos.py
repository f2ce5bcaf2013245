"""Random SIGKILLs of every part under load: is an acknowledged job ever lost or doubled, and how soon is the farm back?

``python -m bench.chaos`` prints a table and exits 1 when a promise is broken. It sees the farm as a caller does: it
posts, polls, reads the events and fetches the pictures; only the pids it takes from ``farm.json``.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console
from rich.table import Table

from bench.farms import running_farm
from fluxfarm import farmfile
from fluxfarm.catalog import KLEIN_SMALL
from fluxfarm.farmfile import RunningFarm

VICTIMS: Final = ("api", "worker", "scheduler", "valkey", "postgres")
JOBS: Final = 2_500
SECONDS: Final = 90.0  #: of kills
PAUSES: Final = (2.0, 4.0)  #: seconds between two kills
DRAIN: Final = 300.0  #: seconds in which what is left must end
AWAY: Final = 60.0  #: seconds for which no part may be away
QUIET: Final = 30.0  #: seconds after a single kill in which nobody looks
CLIENTS: Final = 8
BODY: Final = {
    "type": "IMAGE_GENERATOR",
    "model": KLEIN_SMALL.slug,
    "lane": "bulk",
    "promptObject": {"prompt": "chaos", "size": "64x64", "num_inference_steps": 1},
}
NEVER: Final = float("nan")
FINAL: Final = {"SUCCESS", "FAILED", "CANCELED"}


@dataclass
class Report:
    """What came of the jobs that got a 202; moments are seconds of the wall clock."""

    acknowledged: list[str] = field(default_factory=list)
    unanswered: int = 0  #: posts that got no 202: refused, or cut off
    kills: list[tuple[str, float]] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)  #: final states of acknowledged jobs; "lost": none
    doubled: list[str] = field(default_factory=list)  #: more than one final event or winner, or foreign pictures
    unreadable: list[str] = field(default_factory=list)  #: SUCCESS, and a picture is not there
    extra_attempts: int = 0
    finished: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)  #: when second and later attempts started

    @property
    def broken(self) -> bool:
        """Whether a promise was."""
        whole = self.ended == Counter(SUCCESS=len(self.acknowledged))
        return not whole or bool(self.doubled) or bool(self.unreadable)

    def recovery(self, part: str) -> float:
        """The longest time from a kill of the part to the next job that finished, in seconds."""
        ends = sorted(self.finished)
        gaps = [next((end - at for end in ends if end > at), NEVER) for name, at in self.kills if name == part]
        return max(gaps, default=NEVER)


class Callers:
    """Clients that post until enough jobs are acknowledged, and later look at each of them."""

    def __init__(self, farm: RunningFarm, report: Report) -> None:
        """``report`` is filled as they go."""
        self._report = report
        headers = {"Authorization": f"Bearer {farm.api_key}"}
        limits = httpx.Limits(max_connections=2 * CLIENTS)
        self._http = httpx.AsyncClient(base_url=farm.url, headers=headers, timeout=20, trust_env=False, limits=limits)

    async def post(self, jobs: int, seconds: float) -> None:
        """Spread ``jobs`` acknowledged posts over ``seconds``."""
        began = time.monotonic()

        async def client() -> None:
            while (done := len(self._report.acknowledged)) < jobs:
                early = began + seconds * done / jobs - time.monotonic()
                await asyncio.sleep(max(early, 0.0))
                try:
                    reply = await self._http.post("/v1/jobs", json=BODY)
                except httpx.HTTPError:
                    reply = None
                if reply is not None and reply.status_code == 202:
                    self._report.acknowledged.append(reply.json()["aiRecord"]["uuid"])
                else:
                    self._report.unanswered += 1
                    await asyncio.sleep(0.2)

        await asyncio.gather(*(client() for _ in range(CLIENTS)))

    async def drain(self) -> None:
        """Wait for the end of each job and look whether it is one end."""
        until = time.monotonic() + DRAIN
        uuids = iter(list(self._report.acknowledged))

        async def client() -> None:
            for uuid in uuids:
                record = await self._final(uuid, until)
                if record is None:
                    self._report.ended["lost"] += 1
                else:
                    await self._examine(uuid, record)

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        await self._http.aclose()

    async def _final(self, uuid: str, until: float) -> dict[str, Any] | None:
        while True:
            record: dict[str, Any] = (await self._get(f"/v1/jobs/{uuid}?wait=10")).json()["aiRecord"]
            if record["status"] in FINAL:
                return record
            if time.monotonic() > until:
                return None

    async def _get(self, url: str) -> httpx.Response:
        """As a client does it: again, while a part is down."""
        until = time.monotonic() + AWAY
        while True:
            try:
                reply = await self._http.get(url)
                if reply.status_code < 500:
                    return reply
                error = f"{url} answered {reply.status_code}"
            except httpx.HTTPError as failed:
                error = repr(failed)
            if time.monotonic() > until:
                raise RuntimeError(error)
            await asyncio.sleep(0.2)

    async def _examine(self, uuid: str, record: dict[str, Any]) -> None:
        report = self._report
        report.ended[record["status"]] += 1
        attempts = record["attempts"]
        report.extra_attempts += len(attempts) - 1
        report.finished.append(_moment(record["finishedAt"]))
        report.again += [_moment(attempt["startedAt"]) for attempt in attempts[1:]]
        events = await self._get(f"/v1/jobs/{uuid}/events")
        finals = [state for state in _states(events.text) if state in FINAL]
        winners = [attempt["number"] for attempt in attempts if attempt["status"] == "SUCCESS"]
        keys = record["aiRecordDetail"]["resultObject"]
        own = all(f"/{uuid}/{attempts[-1]['number']}/" in key for key in keys)
        if finals != [record["status"]] or winners != [attempts[-1]["number"]] or len(keys) != 1 or not own:
            report.doubled.append(uuid)
        links = [await self._get(url) for url in record["temporaryUrls"]]
        if not links or any(link.status_code != 200 or not link.content for link in links):
            report.unreadable.append(uuid)


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _states(stream: str) -> list[str]:
    data = [json.loads(line.removeprefix("data: ")) for line in stream.splitlines() if line.startswith("data: ")]
    return [one["status"] for one in data if "status" in one]


async def _kill(data_dir: Path, report: Report, seconds: float, choose: Callable[[], tuple[str, float]]) -> None:
    """SIGKILL one part after another; what is down at the moment is passed over."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        part, pause = choose()
        await asyncio.sleep(pause)
        farm = farmfile.read(data_dir)
        pid = farm.pids.get(part) if farm is not None else None
        with suppress(ProcessLookupError):
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                report.kills.append((part, time.time()))


async def _run(farm: RunningFarm, data_dir: Path, jobs: int, seconds: float, seed: int) -> Report:
    report = Report()
    callers = Callers(farm, report)
    dice = random.Random(seed)
    hand: list[str] = []

    def choose() -> tuple[str, float]:
        if not hand:
            hand.extend(dice.sample(VICTIMS, len(VICTIMS)))
        return hand.pop(), dice.uniform(*PAUSES)

    await asyncio.gather(callers.post(jobs, seconds), _kill(data_dir, report, seconds, choose))
    await callers.drain()
    return report


def measure(jobs: int = JOBS, seconds: float = SECONDS, seed: int = 0) -> Report:
    """One run on a farm of its own, with the settings as they are shipped."""
    with tempfile.TemporaryDirectory(prefix="fluxfarm-chaos-") as folder:
        data_dir = Path(folder) / "data"
        with running_farm(FLUXFARM_DATA_DIR=str(data_dir), FLUXFARM_LOG_LEVEL="ERROR") as farm:
            return asyncio.run(_run(farm, data_dir, jobs, seconds, seed))


@dataclass(frozen=True)
class Comeback:
    """How fast the farm rendered before a part was killed and after, in jobs a second; times are from the kill."""

    part: str
    before: float
    after: float
    rated: float  #: seconds until ten seconds at 95 % of the old rate began
    ended: float  #: seconds until a job ended
    again: float  #: seconds until a job that the kill had interrupted was rendered again; NaN: it interrupted none


def compare(part: str, report: Report, killed_at: float, span: float = 10.0) -> Comeback:
    """Compare the ``span`` before the kill with the first span after it that is as good, or with the best one."""
    ends = report.finished

    def rate(start: float) -> float:
        return sum(start <= end < start + span for end in ends) / span

    before = rate(killed_at - span)
    starts = [killed_at + 0.5 * n for n in range(int(2 * (QUIET - span)) + 1)]
    good = next((start for start in starts if rate(start) >= 0.95 * before), max(starts, key=rate))
    ended, again = (
        min((at - killed_at for at in found if at > killed_at), default=NEVER) for found in (ends, report.again)
    )
    return Comeback(part, before, rate(good), good - killed_at, ended, again)


async def _comeback(farm: RunningFarm, data_dir: Path, part: str) -> Comeback:
    report = Report()
    callers = Callers(farm, report)
    await callers.post(1_500, 5)
    await asyncio.sleep(10)
    await _kill(data_dir, report, 0.1, lambda: (part, 0.1))
    await asyncio.sleep(QUIET)  # looking at the jobs costs the farm a tenth of its rate on two cores
    await callers.drain()
    ((_, at),) = report.kills
    return compare(part, report, at)


def measure_comebacks(parts: Iterable[str] = ("worker", "valkey", "postgres")) -> list[Comeback]:
    """Kill one part under a full queue, each once, and see when the old rate is back."""
    with tempfile.TemporaryDirectory(prefix="fluxfarm-chaos-") as folder:
        data_dir = Path(folder) / "data"
        with running_farm(FLUXFARM_DATA_DIR=str(data_dir), FLUXFARM_LOG_LEVEL="ERROR") as farm:
            return [asyncio.run(_comeback(farm, data_dir, part)) for part in parts]


def table(report: Report) -> Table:
    """The report for people."""
    kills = Counter(part for part, _ in report.kills)
    shown = Table("what", "figure", title="Random SIGKILLs")
    rows: dict[str, object] = {
        "jobs that got a 202": len(report.acknowledged),
        "of these SUCCESS": report.ended["SUCCESS"],
        "lost": report.ended["lost"],
        "FAILED or CANCELED": report.ended["FAILED"] + report.ended["CANCELED"],
        "rendered twice visibly": len(report.doubled),
        "pictures that cannot be fetched": len(report.unreadable),
        "posts without a 202": report.unanswered,
        "kills": ", ".join(f"{part} {kills[part]}" for part in VICTIMS),
        "attempts beyond the first": report.extra_attempts,
        **{f"{part} killed, until a job ended": f"{report.recovery(part):.1f} s" for part in VICTIMS if kills[part]},
    }
    for name, value in rows.items():
        shown.add_row(name, str(value))
    return shown


def main(arguments: Sequence[str]) -> int:
    """The seed may be given; 1 when a promise was broken."""
    os.environ["OMP_NUM_THREADS"] = "1"
    console = Console()
    report = measure(seed=int(arguments[0]) if arguments else 0)
    console.print(table(report))
    comebacks = Table(
        "killed once", "before", "after", "at that rate", "a job ends", "interrupted one again", title="Back"
    )
    for one in measure_comebacks():
        rates, times = (one.before, one.after), (one.rated, one.ended, one.again)
        comebacks.add_row(one.part, *(f"{rate:.1f}/s" for rate in rates), *(f"{seconds:.1f} s" for seconds in times))
    console.print(comebacks)
    return int(report.broken)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
