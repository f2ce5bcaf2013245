"""Ends a process whose render stands still: its supervisor starts a fresh one, and the lease frees the job."""

from __future__ import annotations

import faulthandler
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

STDERR: Final = 2
REARM: Final = 1.0  #: seconds; more often would only cost
AT_ONCE: Final = 0.001  #: seconds; the timer takes no zero

OnStep = Callable[[int, int], None]


class Watchdog:
    """One timer for one device, in C: it fires even when a driver call never gives Python's lock back.

    Several threads may be watched at once; the timer is set to the one that has been silent for the longest.

    When it fires, the stack of every thread goes to the log (files and lines, no values) and the process exits 1.
    """

    def __init__(self, seconds: float) -> None:
        """``seconds`` may pass between two signs of life."""
        self._seconds = seconds
        self._signs: dict[int, float] = {}  #: by thread: when it last gave a sign of life
        self._lock = threading.Lock()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what this thread does in the block."""
        self._sign()
        try:
            yield
        finally:
            with self._lock:
                del self._signs[threading.get_ident()]
                self._arm()

    def heard(self, on_step: OnStep) -> OnStep:
        """The same function, with a sign of life before it."""

        def step(done: int, total: int) -> None:
            self.alive()
            on_step(done, total)

        return step

    def alive(self) -> None:
        """Something was done by this thread: wait the whole time again."""
        last = self._signs.get(threading.get_ident())
        if last is not None and time.monotonic() - last > min(REARM, self._seconds / 4):
            self._sign()

    def _sign(self) -> None:
        with self._lock:
            self._signs[threading.get_ident()] = time.monotonic()
            self._arm()

    def _arm(self) -> None:
        if not self._signs:
            faulthandler.cancel_dump_traceback_later()
            return
        left = min(self._signs.values()) + self._seconds - time.monotonic()
        faulthandler.dump_traceback_later(max(left, AT_ONCE), exit=True, file=STDERR)
