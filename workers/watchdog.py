"""Ends a process whose render stands still: its supervisor starts a fresh one, and the lease frees the job."""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

STDERR: Final = 2
REARM: Final = 1.0  #: seconds; more often would only cost

OnStep = Callable[[int, int], None]


class Watchdog:
    """One timer for one device, in C: it fires even when a driver call never gives Python's lock back.

    When it fires, the stack of every thread goes to the log (files and lines, no values) and the process exits 1.
    """

    def __init__(self, seconds: float) -> None:
        """``seconds`` may pass between two signs of life."""
        self._seconds = seconds
        self._armed = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the block."""
        self._arm()
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()

    def heard(self, on_step: OnStep) -> OnStep:
        """The same function, with a sign of life before it."""

        def step(done: int, total: int) -> None:
            self.alive()
            on_step(done, total)

        return step

    def alive(self) -> None:
        """Something was done: wait the whole time again."""
        if time.monotonic() - self._armed > min(REARM, self._seconds / 4):
            self._arm()

    def _arm(self) -> None:
        self._armed = time.monotonic()
        faulthandler.dump_traceback_later(self._seconds, exit=True, file=STDERR)
