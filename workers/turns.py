"""Whose turn it is on a device: one slot draws, one stands at the head of the line and makes ready."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from fluxfarm.errors import FluxfarmError
from workers.leases import Held

Take = Callable[[], None]
OnStep = Callable[[int, int], None]


class Turns:
    """The lock of a device, and a word shortly before it is free.

    A device that waits while the next jobs are claimed loses some ten milliseconds a render. So whoever draws says
    when only the end of it is left (``nearly``), and the head of the line claims meanwhile: the fair order decides as
    late as that, and no lease is held for longer than the end takes.
    """

    def __init__(self) -> None:
        """Nobody draws."""
        self._head = threading.Lock()
        self._device = threading.Lock()
        self._is_due = threading.Event()
        self._is_due.set()

    @contextmanager
    def next(self) -> Iterator[Take]:
        """Wait until the device is as good as free; what is given waits for the rest and takes it, once."""
        self._head.acquire()
        taken = False

        def take() -> None:
            nonlocal taken
            self._device.acquire()
            taken = True
            self._is_due.clear()
            self._head.release()

        try:
            self._is_due.wait()
            yield take
        finally:
            if taken:
                self._is_due.set()  # first: whoever takes the device clears it
                self._device.release()
            else:
                self._head.release()

    def nearly(self) -> None:
        """What is drawn is done but for its last moments: the next in line may claim. For whoever draws to say."""
        self._is_due.set()

    def once_all_are_drawn(self, held: Sequence[Held]) -> Callable[[Held], OnStep]:
        """What each of them does at a step; at the last one of the last of them, the end is near.

        While a job is drawn again nothing is claimed: if it kills the worker, it kills no other's attempt.
        """
        left = {id(one) for one in held}
        suspects = any(one.claim.attempt > 1 for one in held)

        def made(one: Held) -> OnStep:
            def on_step(done: int, total: int) -> None:
                try:
                    one.on_step(done, total)
                except FluxfarmError:
                    left.discard(id(one))
                    raise
                if done == total:
                    left.discard(id(one))
                    if not left and not suspects:
                        self.nearly()

            return on_step

        return made

    def locked(self) -> bool:
        """Whether somebody draws or loads."""
        return self._device.locked()
