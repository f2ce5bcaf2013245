"""``make bench``: every measurement, as tables."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.farms import running_farm
from bench.overhead import PROMPT, measure
from bench.traffic import measure_polls, measure_posts
from fluxfarm.catalog import KLEIN_SMALL
from fluxfarm.client import Client


def main() -> None:
    """Measure on this machine; one thread of torch stands for the GPU, the other core is the farm's."""
    os.environ["OMP_NUM_THREADS"] = "1"
    console = Console()
    overhead = Table("render", "bare, renders/s", "farm, renders/s", "farm / bare", "worst round", title="Overhead")
    traffic = Table("call", "per second", "p50, ms", "p99, ms", title="One API process, 16 connections")
    with (
        running_farm() as farm,
        Client(farm.url, farm.api_key) as client,
        tempfile.TemporaryDirectory() as models,
    ):
        for found in measure(client, Path(models)):
            overhead.add_row(
                found.load.name,
                f"{found.bare:.2f}",
                f"{found.farm:.2f}",
                f"{found.ratio:.3f}",
                f"{found.worst:.3f}",
            )
        record = client.wait(client.submit(PROMPT, model=KLEIN_SMALL.slug, size="64x64", steps=1).uuid)
        polls = measure_polls(farm.url, farm.api_key, str(record.uuid))
        for rate in (polls, measure_posts(farm.url, farm.api_key)):
            traffic.add_row(rate.name, f"{rate.per_second:.0f}", f"{rate.p50:.1f}", f"{rate.p99:.1f}")
    console.print(overhead)
    console.print(traffic)


if __name__ == "__main__":
    main()
