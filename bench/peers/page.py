"""What was measured, as the page ``docs/benchmarks.md``."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version

from bench.peers.contestants import Contestant, Served
from bench.peers.measuring import CLIENTS, CRASHED, JOBS, LONG, SMALL, Crash, Round, Wait, machine, percentile


@dataclass
class Found:
    """All that was measured of one contestant."""

    peer: Contestant
    cold: float = 0.0
    megabytes: float = 0.0
    rounds: list[Round] = field(default_factory=list)
    crash: Crash | None = None
    wait: Wait | None = None

    @property
    def rate(self) -> float:
        """Pictures a second: the median of the rounds."""
        return statistics.median(one.rate for one in self.rounds)

    @property
    def calls(self) -> list[float]:
        """Seconds of every call."""
        return [seconds for one in self.rounds for seconds in one.calls]


def page(found: list[Found], rounds: int) -> str:
    """The tables as Markdown; the first one found is the bare loop."""
    return f"""# Benchmarks: the farm beside its peers

{datetime.now(UTC):%Y-%m-%d}, `python -m bench.peers`, {machine()}, Python {sys.version.split()[0]}, torch
{version("torch")}, diffusers {version("diffusers")}. Every server renders the same small FLUX.2 model with one
thread of torch and hands out WebP; the farm signs its pictures as well.

![pictures a second](pictures/peers.svg)

## Overhead: {SMALL[0]} px, {SMALL[1]} steps

{rounds} rounds of {JOBS} pictures for {CLIENTS} callers, everybody in turn; the medians of the rounds. Overhead is
what a picture costs beyond the bare loop; the farm's is below zero, as it draws waiting jobs of one shape in one call
and encodes a prompt once; with `FLUXFARM_BATCH_SIZE=1` it draws one at a time, as all others.
Memory counts shared pages once; the bare loop's holds the bench as well.
The farm's is all of it: PostgreSQL, Valkey, API, scheduler, worker, Flower. Start is until {JOBS} pictures were made.

| | pictures/s | worst, best round | overhead, ms a picture | p50, ms | p95, ms | memory, MB | start, s |
|---|---|---|---|---|---|---|---|
{_lines(_overhead(one, found[0].rate) for one in found)}

## A crash

{CRASHED} pictures of {LONG[0]} px are asked for at once; two seconds later what renders gets a SIGKILL and is
started again. Nobody sends a job a second time. Twice counts pictures that were finished once more; for the farm
attempts that were begun once more, also of what the kill had cut off: the caller gets one result either way
([reliability.md](reliability.md)).

| | lost | rendered twice | next picture after, s |
|---|---|---|---|
{_lines(_crash(one.peer, one.crash) for one in found if one.crash is not None)}

## Who waits for whom

One user's picture, whole call: alone, the median of five, and behind sixty of another user's, the worst of five. The
farm knows two tenants and lanes; the others know neither.

| | alone, s | behind a backlog, s | times |
|---|---|---|---|
{_lines(_wait(one.peer, one.wait) for one in found if one.wait is not None)}

## Beside this

[The farm and the bare pipeline](../bench/results/overhead.md), a full queue, with and without batching;
[ten thousand jobs of one tenant](../bench/results/campaign.md) and how long another's one waits behind them;
[calls a second](../bench/results/traffic.md); [half an hour of faults](../bench/results/soak.md).
"""


def _lines(rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _overhead(one: Found, bare: float) -> tuple[str, ...]:
    rates = [each.rate for each in one.rounds]
    return (
        _title(one.peer),
        f"{one.rate:.1f}",
        f"{min(rates):.1f}, {max(rates):.1f}",
        f"{1000 / one.rate - 1000 / bare:.1f}",
        f"{1000 * percentile(one.calls, 0.5):.0f}",
        f"{1000 * percentile(one.calls, 0.95):.0f}",
        f"{one.megabytes:.0f}",
        f"{one.cold:.0f}",
    )


def _crash(peer: Contestant, crash: Crash) -> tuple[str, ...]:
    return (
        _title(peer),
        f"{crash.lost}",
        f"{crash.twice}",
        "never" if crash.recovery is None else f"{crash.recovery:.1f}",
    )


def _wait(peer: Contestant, wait: Wait) -> tuple[str, ...]:
    return _title(peer), f"{wait.alone:.2f}", f"{wait.behind:.2f}", f"{wait.behind / wait.alone:.1f}"


def _title(peer: Contestant) -> str:
    return f"{peer.name} ({', '.join(peer.packages)})" if isinstance(peer, Served) and peer.packages else peer.name
