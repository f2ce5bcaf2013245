"""``make bench``: every measurement as a table; ``make bench ARGS=dispatch`` only one of them.

``make bench ARGS="soak --minutes 30"`` and ``ARGS=chaos`` run what takes long and has options of its own.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import batches, campaign, chaos, dashboard, dispatch, overhead, retention, traffic
from bench.farms import running_farm
from bench.plot import log_log
from bench.soak import run as soak
from fluxfarm.catalog import KLEIN_SMALL
from fluxfarm.client import Client

SHARES = (0.5, 0.99, 1.0)
PLOT = Path(__file__).parent.parent / "docs" / "pictures" / "dispatch.svg"


def show_overhead() -> Table:
    """One thread of torch stands for the GPU; the other core is the farm's. First one a call, as in the loop."""
    columns = ("render", "pictures a call", "bare, renders/s", "farm, renders/s", "farm / bare", "worst round")
    table = Table(*columns, title="Overhead")
    for size, environment in (("1", {"FLUXFARM_BATCH_SIZE": "1"}), ("as it pays", {})):
        with (
            running_farm(**environment) as farm,
            Client(farm.url, farm.api_key) as client,
            tempfile.TemporaryDirectory() as models,
        ):
            for found in overhead.measure(client, Path(models)):
                figures = (found.bare, found.farm, found.ratio, found.worst)
                row = (found.load.name, size, *(f"{figure:.3f}" for figure in figures))
                table.add_row(*row)
                sys.stderr.write(f"{', '.join(row)}\n")
    return table


def show_batches() -> Table:
    """Several pictures a call, and kept embeddings; one thread of torch."""
    table = Table("what", "images/s", "images a second of the processor", "gain", title="Batches and embeddings")
    with tempfile.TemporaryDirectory() as models:
        for found in batches.measure(Path(models)):
            table.add_row(
                found.what, f"{found.per_second:.2f}", f"{found.per_processor_second:.2f}", f"{found.gain:.2f}"
            )
    return table


def show_traffic() -> Table:
    """A bare route, polls and jobs accepted: with the worker held still, then while it renders what was accepted."""
    title = f"One API process, {traffic.CONNECTIONS} connections"
    processor = ("API", "PostgreSQL", "callers")
    columns = ("call", "worker", "per second", "p50, ms", "p99, ms", *(f"{who}, CPU ms a call" for who in processor))
    table = Table(*columns, title=title)

    def add(rate: traffic.Rate, worker: str) -> None:
        figures = (f"{one:.1f}" for one in (rate.p50, rate.p99))
        spent = (f"{one:.2f}" for one in (rate.cpu, rate.database, rate.callers))
        table.add_row(rate.name, worker, f"{rate.per_second:.0f}", *figures, *spent)

    add(traffic.measure_bare(), "")
    with running_farm() as farm, Client(farm.url, farm.api_key) as client:
        made = [
            client.submit(overhead.PROMPT, model=KLEIN_SMALL.slug, size="64x64", steps=1).uuid
            for _ in range(traffic.CONNECTIONS)
        ]
        uuids = [str(client.wait(uuid).uuid) for uuid in made]
        try:
            for worker, order in (("held still", signal.SIGSTOP), ("renders", signal.SIGCONT)):
                os.kill(farm.pids["worker"], order)
                add(traffic.measure_polls(farm, uuids), worker)
                for keyed in (False, True):
                    add(traffic.measure_posts(farm, keyed=keyed), worker)
        finally:
            os.kill(farm.pids["worker"], signal.SIGCONT)  # or it could not end
    return table


def show_dispatch() -> Table:
    """The cost of a turn and of a window's tickets, and its plot."""
    table = Table("queued rows", "turn, ms", "worst", "6 tickets, ms", "worst", title="Picking the next job")
    costs = list(dispatch.measure())
    for cost in costs:
        figures = (cost.turn, cost.turn_worst, cost.dispatch, cost.dispatch_worst)
        table.add_row(f"{cost.rows:,}", *(f"{figure:.2f}" for figure in figures))
    lines = {
        "one turn (claim, charge, attempt, event)": [(cost.rows, cost.turn) for cost in costs],
        f"{dispatch.TICKETS} tickets in fair order": [(cost.rows, cost.dispatch) for cost in costs],
    }
    PLOT.write_text(log_log("Picking the next job", "queued rows", "milliseconds", lines), encoding="utf-8")
    return table


def show_campaign() -> Table:
    """A's ten thousand jobs, and B's interactive ones beside them."""
    table = Table("what", "figure", title="A campaign of 10,000 jobs, and another tenant")
    with running_farm() as farm, Client(farm.url, farm.api_key) as a:
        other = a.create_tenant("bench-b")
        key = a.create_key("bench", tenant=other.id)
        with Client(farm.url, key.secret) as b:
            found = campaign.measure(a, b)
    table.add_row("accepted, s", f"{found.accepted:.2f}")
    table.add_row("A alone, renders/s", f"{found.alone:.2f}")
    table.add_row("A beside B, renders/s", f"{found.beside:.2f}")
    table.add_row("B, renders/s", f"{found.others:.2f}")
    table.add_row("both / A alone", f"{(found.beside + found.others) / found.alone:.3f}")
    table.add_row("one render, s", f"{found.render:.2f}")
    table.add_row("B's start delay, s: median, p95", f"{found.delay_median:.2f}, {found.delay_p95:.2f}")
    return table


def show_dashboard() -> Table:
    """The overview's first paint, and the scroll of a wall of ten thousand pictures."""
    table = Table("what", "figure", title=f"The dashboard in Chromium, {dashboard.PICTURES:,} pictures")
    opening, scrolls = dashboard.measure()
    paints = f"{opening.best:.0f}, {opening.median:.0f}, {opening.worst:.0f}"
    table.add_row("overview, first paint, ms: best, median, worst", paints)
    table.add_row("overview, until the first byte, ms", f"{opening.answered:.0f}")
    table.add_row("overview, processor of the page until the paint, ms", f"{opening.busy:.0f}")
    table.add_row("overview, bytes: travelled, unpacked", f"{opening.travelled:,}, {opening.unpacked:,}")
    for name, scroll in scrolls.items():
        late = f"{len(scroll.late)}, {max(scroll.late, default=0.0):.0f}"
        table.add_row(f"{name}: frames, and their median, ms", f"{scroll.frames}, {scroll.median:.0f}")
        table.add_row(f"{name}: frames over {dashboard.LATE:.0f} ms, and the worst, ms", late)
        table.add_row(
            f"{name}: longest task, ms by the clock, of the processor", f"{scroll.longest:.1f}, {scroll.busiest:.1f}"
        )
        table.add_row(f"{name}: processor of the main thread, ms a frame", f"{scroll.busy:.1f}")
    return table


def show_retention() -> Table:
    """What is erased of a large table, and who feels it."""
    title = f"{retention.DUE:,} of {retention.JOBS:,} jobs are due"
    felt = ("claim, ms: p50", "p99", "worst", "poll, ms: p50", "p99", "worst")
    table = Table("erased", "jobs", "jobs/s", "longest transaction, ms", *felt, title=title)
    for one in retention.measure():
        shares = [retention.quantile(times, share) for times in (one.felt.claims, one.felt.polls) for share in SHARES]
        rate = f"{one.jobs / one.seconds:.0f}"
        table.add_row(one.name, f"{one.jobs:,}", rate, f"{one.longest:.0f}", *(f"{share:.1f}" for share in shares))
    return table


SHOWS: dict[str, Callable[[], Table]] = {
    "overhead": show_overhead,
    "batches": show_batches,
    "traffic": show_traffic,
    "dispatch": show_dispatch,
    "campaign": show_campaign,
    "dashboard": show_dashboard,
    "retention": show_retention,
}
APART: dict[str, Callable[[Sequence[str]], int]] = {"chaos": chaos.main, "soak": soak.main}


def main(wanted: list[str]) -> int:
    """Measure what was asked for, or everything but what stands apart."""
    if wanted and wanted[0] in APART:
        return APART[wanted[0]](wanted[1:])
    if unknown := set(wanted) - SHOWS.keys():
        sys.stderr.write(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join([*SHOWS, *APART])}\n")
        return 2
    os.environ["OMP_NUM_THREADS"] = "1"
    console = Console()
    for name, show in SHOWS.items():
        if not wanted or name in wanted:
            console.print(show())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
