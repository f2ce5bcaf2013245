"""What a call of several pictures gains over one by one, and what prompts gain that are kept or encoded ahead.

On the small model.

Images a second of the clock, and a second of the processor, which a busy machine changes less.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from fluxfarm.catalog import KLEIN_SMALL
from workers.pipeline import Drawing, Pipeline
from workers.pipeline_batch import Member
from workers.pipeline_embeddings import Embeddings
from workers.pipeline_small import ensure_small

ROUNDS = 3
PICTURES = 8
STEPS = 8
SIDES = (64, 128)
BATCHES = (1, 2, 4, 8)
PROMPTS = 4  #: of the pictures that are drawn with and without kept embeddings


@dataclass(frozen=True, slots=True)
class Gain:
    """Medians of the rounds."""

    what: str
    per_second: float
    per_processor_second: float
    gain: float  #: by the processor, against the first of its kind


def _member(side: int, n: int, prompt: str) -> Member:
    drawing = Drawing(
        prompt=prompt,
        width=side,
        height=side,
        steps=STEPS,
        guidance=KLEIN_SMALL.guidance.default,
        seeds=(n,),
        max_sequence_length=KLEIN_SMALL.max_sequence_length,
    )
    return Member(drawing, lambda _done, _total: None)


def _timed(draw: Callable[[], None]) -> tuple[float, float]:
    clock, processor = time.perf_counter(), time.process_time()
    draw()
    return PICTURES / (time.perf_counter() - clock), PICTURES / (time.process_time() - processor)


def _batch(pipeline: Pipeline, side: int, most: int) -> None:
    members = [_member(side, n, "a lighthouse at dusk") for n in range(PICTURES)]
    pipeline.draw_together(members, most)
    if any(member.failure is not None for member in members):
        raise RuntimeError("a picture of the measurement failed")


def _prompts(pipeline: Pipeline) -> None:
    for n in range(PICTURES):
        pipeline.draw_together([_member(128, n, f"a lighthouse, number {n % PROMPTS}")])


def _unread(pipeline: Pipeline, numbers: Iterator[int], *, ahead: bool) -> None:
    """Each picture has a prompt of its own; ``ahead``: the next one is encoded while one is drawn."""
    members = [_member(128, n, f"a lighthouse, never seen {next(numbers)}") for n in range(PICTURES)]
    with ThreadPoolExecutor(1) as beside:
        for member, following in zip(members, [*members[1:], None], strict=True):
            if ahead and following is not None:
                beside.submit(pipeline.encode_ahead, following.drawing.prompt, following.drawing.max_sequence_length)
            pipeline.draw_together([member])


def measure(models: Path) -> Iterator[Gain]:
    """Each kind in turn, round by round, so that a busy moment meets all."""
    folder = ensure_small(KLEIN_SMALL.slug, models)
    pipeline = Pipeline.load(folder, device="cpu")
    kinds: dict[str, Callable[[], None]] = {}
    for side in SIDES:
        for most in BATCHES:
            kinds[f"{side} px, {most} a call"] = lambda side=side, most=most: _batch(pipeline, side, most)  # type: ignore[misc]
        yield from _gains(kinds)
        kinds.clear()
    plain, keeping = (Pipeline.load(folder, device="cpu", embeddings=Embeddings(kept)) for kept in (0, 1 << 28))
    kinds["128 px, each prompt encoded"] = lambda: _prompts(plain)
    kinds[f"128 px, {PROMPTS} prompts kept"] = lambda: _prompts(keeping)
    yield from _gains(kinds)
    numbers = count()
    yield from _gains(
        {
            "128 px, new prompts, each encoded in its turn": lambda: _unread(keeping, numbers, ahead=False),
            "128 px, new prompts, the next one beside": lambda: _unread(keeping, numbers, ahead=True),
        }
    )


def _gains(kinds: dict[str, Callable[[], None]]) -> Iterator[Gain]:
    for draw in kinds.values():
        draw()
    rounds: dict[str, list[tuple[float, float]]] = {what: [] for what in kinds}
    for _ in range(ROUNDS):
        for what, draw in kinds.items():
            rounds[what].append(_timed(draw))
    first = 0.0
    for what, found in rounds.items():
        processor = statistics.median(one[1] for one in found)
        first = first or processor
        yield Gain(what, statistics.median(one[0] for one in found), processor, processor / first)
