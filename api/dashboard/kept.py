"""What was read a moment ago, shown again however many people look."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Values by what they are of, each for some seconds."""

    def __init__(self, seconds: float) -> None:
        """How long a value is good for."""
        self._seconds = seconds
        self._values: dict[Hashable, tuple[float, T]] = {}

    def read(self, of: Hashable, make: Callable[[], T]) -> T:
        """The value, made anew when it is too old."""
        drawn, value = self._values.get(of, (None, None))
        if drawn is None or value is None or time.monotonic() - drawn >= self._seconds:
            value = self.put(of, make())
        return value

    def put(self, of: Hashable, value: T) -> T:
        """Keep a value that was made just now; those that are too old go."""
        now = time.monotonic()
        fresh = {who: kept for who, kept in self._values.copy().items() if now - kept[0] < self._seconds}
        self._values = fresh | {of: (now, value)}
        return value
