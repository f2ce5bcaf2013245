"""What a render takes of its device: the most memory, how busy it was, how much power it drew; for the record.

Load and power come from the driver by ``nvidia-ml-py``. Without it, or away from NVIDIA, only the memory is told, that
of the device, or of the process where it draws on the CPU.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from storage.repository.workers import Reading
from workers import metrics, readings

INTERVAL: Final = 0.5  #: seconds between two looks

Look = Callable[[], tuple[Reading, float | None]]


class Looks:
    """The looks at a device while it rendered."""

    def __init__(self) -> None:
        self._seen: list[tuple[Reading, float | None]] = []
        self.peak: int | None = None  #: bytes; where the device's own allocator kept count

    def add(self, reading: Reading, watts: float | None) -> None:
        """One more."""
        self._seen.append((reading, watts))

    def told(self) -> dict[str, float]:
        """The highest memory in bytes, the means of load (0 to 1) and power in watts; what was not seen is left out."""
        memory = [reading.memory_used for reading, _ in self._seen]
        load = [reading.utilisation for reading, _ in self._seen if reading.utilisation is not None]
        power = [watts for _, watts in self._seen if watts is not None]
        told: dict[str, float] = {}
        if self.peak is not None or memory:
            told["peakMemoryBytes"] = self.peak if self.peak is not None else max(memory)
        if load:
            told["utilisation"] = round(sum(load) / len(load), 3)
        if power:
            told["watts"] = round(sum(power) / len(power), 1)
        return told


@contextmanager
def watching(device: str, look: Look | None = None) -> Iterator[Looks]:
    """Look at the device now, every half second beside what runs inside, and once more at its end."""
    see = look or (lambda: (readings.read(device), readings.watts(device)))
    looks = Looks()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(INTERVAL):
            looks.add(*see())

    looks.add(*see())
    torch: Any = sys.modules.get("torch") if device.startswith("cuda") else None
    if torch is not None:
        torch.cuda.reset_peak_memory_stats(device)
    watcher = threading.Thread(target=watch, name="meter", daemon=True)
    watcher.start()
    try:
        yield looks
    finally:
        ended.set()
        watcher.join()
        looks.add(*see())
        if torch is not None:
            looks.peak = int(torch.cuda.max_memory_allocated(device))


def show(device: str) -> None:
    """Let Prometheus see the device, as it is whenever it asks."""
    metrics.DEVICE_MEMORY.labels(device).set_function(lambda: _known(readings.read(device).memory_used))
    metrics.DEVICE_LOAD.labels(device).set_function(lambda: _known(readings.read(device).utilisation))
    metrics.DEVICE_WATTS.labels(device).set_function(lambda: _known(readings.watts(device)))


def _known(value: float | None) -> float:
    return float("nan") if value is None else value
