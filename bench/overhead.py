"""What the farm costs per image: renders a second through the farm against the bare pipeline in a loop, same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fluxfarm.airecord import AiRecord
from fluxfarm.catalog import KLEIN_SMALL
from fluxfarm.client import Client
from fluxfarm.jobs import JobState
from workers.pipeline import Drawing, Pipeline
from workers.pipeline_small import ensure_small

PROMPT = "a lighthouse at dusk"
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Load:
    """One size of render; ``jobs`` per round, a square of ``side`` pixels."""

    name: str
    side: int
    steps: int
    jobs: int


#: whole calls, and several: the first of them is not counted
LOADS = (Load("128 px, 8 steps", 128, 8, 32), Load("256 px, 14 steps, 1 s", 256, 14, 16))


@dataclass(frozen=True, slots=True)
class Overhead:
    """Renders a second, the median of the rounds, and their ratio round by round."""

    load: Load
    bare: float
    farm: float
    ratio: float
    worst: float


def _bare(pipeline: Pipeline, load: Load) -> float:
    started = time.perf_counter()
    for seed in range(load.jobs):
        drawing = Drawing(
            prompt=PROMPT,
            width=load.side,
            height=load.side,
            steps=load.steps,
            guidance=3.0,
            seeds=(seed,),
            max_sequence_length=KLEIN_SMALL.max_sequence_length,  # as the farm does
        )
        pipeline.draw(drawing, lambda _step, _steps: None)
    return load.jobs / (time.perf_counter() - started)


def _submit(client: Client, load: Load, seed: int) -> AiRecord:
    return client.submit(
        PROMPT, model=KLEIN_SMALL.slug, size=f"{load.side}x{load.side}", steps=load.steps, guidance=3.0, seed=seed
    )


def _through_the_farm(client: Client, load: Load) -> list[AiRecord]:
    submitted = [_submit(client, load, seed) for seed in range(load.jobs)]
    done = [client.wait(record.uuid, timeout=600) for record in submitted]
    if any(record.status is not JobState.SUCCESS for record in done):
        raise RuntimeError("a job of the measurement failed")
    return done


def _farm(client: Client, load: Load) -> float:
    """What a full queue gets out of the worker, by the records: all that ends after the first call, over its time.

    The first call has the queue empty before it, and the last delivery nothing to be hidden behind: either would count
    for more here than in a campaign.
    """
    done = _through_the_farm(client, load)
    times = [(record.started_at, record.finished_at) for record in done if record.started_at and record.finished_at]
    first = min(started for started, _ in times)
    begin = max(finished for started, finished in times if started == first)
    later = [finished for _, finished in times if finished > begin]
    return len(later) / (max(later) - begin).total_seconds()


def measure(client: Client, models: Path) -> Iterator[Overhead]:
    """Rounds of both, one after the other, so that a busy moment meets both."""
    pipeline = Pipeline.load(ensure_small(KLEIN_SMALL.slug, models), device="cpu")
    for load in LOADS:
        warm = Load(load.name, load.side, load.steps, 2)
        _bare(pipeline, warm)
        _through_the_farm(client, warm)
        rounds = [(_bare(pipeline, load), _farm(client, load)) for _ in range(ROUNDS)]
        ratios = [farm / bare for bare, farm in rounds]
        yield Overhead(
            load,
            bare=statistics.median(bare for bare, _ in rounds),
            farm=statistics.median(farm for _, farm in rounds),
            ratio=statistics.median(ratios),
            worst=min(ratios),
        )
