"""Starts a worker or a scheduler with what a fault test needs: a painter that obeys its prompt, a clock that is wrong.

``python -m tests.faults.launch local|remote|scheduler [--clock=SECONDS] [--painter=FOLDER] [--patience=SECONDS]``.
Everything but the pixels is the farm's own code: Celery, claim, lease, store, watchdog. The painter costs no torch, so
a worker is ready in a second.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from tests.faults.deaths import install_deaths

TICKET_PATIENCE = 2.0  #: seconds; the farm waits ten before it takes a ticket for lost
STEP = 0.06  #: seconds
FINISHED_ANYWAY = "loses the answer"


class Painter:
    """Stands in for ``Pipeline``; the words of the prompt say what befalls the process.

    ``dies``: SIGKILL at the first step, each time; ``dies once``. ``hangs once``: no step ever comes. ``dies before the
    commit once``: the pictures are stored and the job is not finished. Steps take ``STEP`` seconds each.
    """

    revision = "painter"
    device = "cpu"
    dtype = "float32"
    memory = 0
    tuned: ClassVar[dict[str, str]] = {}

    def __init__(self, marks: Path) -> None:
        """``marks`` is a folder that survives this process."""
        self._marks = marks

    def first(self, what: str) -> bool:
        """True once for each text, also across processes."""
        try:
            (self._marks / what.replace(" ", "-")).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def load(self, *_: Any, **__: Any) -> Painter:
        """There is only one."""
        return self

    def draw_together(self, members: Any, _most: int = 1) -> None:
        """Noise, so that no picture is small when it is stored; a batch takes as long as its longest member."""
        for member in members:
            self._befall(member.drawing.prompt)
        total = max(member.drawing.steps * len(member.drawing.seeds) for member in members)
        for step in range(total):
            if total > 1:
                time.sleep(STEP)
            for member in members:
                if member.failure is None and step < member.drawing.steps * len(member.drawing.seeds):
                    member.advance(1)
            if all(member.failure is not None for member in members):
                return
        for position, member in enumerate(members):
            size = (member.drawing.width, member.drawing.height)
            noise = [random.Random(seed).randbytes(3 * size[0] * size[1]) for seed in member.drawing.seeds]
            member.images = [Image.frombytes("RGB", size, data) for data in noise]
            member.position, member.size = position, len(members)

    def _befall(self, prompt: str) -> None:
        if prompt == "dies" or (prompt == "dies once" and self.first(prompt)):
            os.kill(os.getpid(), signal.SIGKILL)
        if prompt == "hangs once" and self.first(prompt):
            threading.Event().wait()

    def close(self) -> None:
        """Holds nothing."""


def install_painter(marks: Path) -> None:
    """Put the painter in the pipeline's place, and the two faults that only the worker's own code can have."""
    from fluxfarm.errors import DatabaseUnavailable  # noqa: PLC0415  # after the clock is set
    from workers import delivery  # noqa: PLC0415
    from workers.providers import local  # noqa: PLC0415

    painter = Painter(marks)
    vars(local).update(ensure_small=lambda _slug, folder: folder, Pipeline=painter)
    finish = delivery._finish

    def fateful(worker: Any, held: Any, outcome: Any) -> bool:
        prompt = held.claim.request.prompt
        if prompt == "dies before the commit once" and painter.first(prompt):
            os.kill(os.getpid(), signal.SIGKILL)
        done = finish(worker, held, outcome)
        if prompt == FINISHED_ANYWAY:
            raise DatabaseUnavailable("The answer of a commit that happened was lost.")
        return done

    delivery._finish = fateful


def shift_clock(seconds: float) -> None:
    """Make this process believe in another time; its monotonic clock stays right, as with a wrong date."""
    wall = time.time
    time.time = lambda: wall() + seconds


def main(arguments: list[str]) -> int:
    """The kind comes first, options after it."""
    kind, *rest = arguments
    options = dict(option.removeprefix("--").split("=", 1) for option in rest)
    if "clock" in options:
        shift_clock(float(options["clock"]))
    from storage import dispatcher  # noqa: PLC0415
    from workers import __main__ as workers  # noqa: PLC0415

    dispatcher.TICKET_PATIENCE = float(options.get("patience", TICKET_PATIENCE))  # type: ignore[misc]
    if kind == "remote":
        install_deaths(Path(options["painter"]))
    elif "painter" in options:
        install_painter(Path(options["painter"]))
    return workers.main([kind])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
