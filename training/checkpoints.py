"""Where training stands: saved in one step, found again after a stop, and shown in a line."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import torch

EVERY: Final = 120.0  #: seconds between two checkpoints
_LINE: Final = 10.0  # seconds between two progress lines


class Run:
    """One stage of training in a folder: resumes where it stopped, saves itself, tells how it goes."""

    def __init__(self, folder: Path, stage: str, steps: int) -> None:
        self.steps = steps
        self._stage = stage
        self._path = folder / f"{stage}.pt"
        self._saved = self._told = time.monotonic()
        self._since: tuple[float, int] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def resume(self) -> dict[str, Any] | None:
        """What ``save`` wrote last, if anything."""
        if not self._path.is_file():
            return None
        found: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
        return found

    def save(self, state: dict[str, Any]) -> None:
        """Write the state; a stop in between leaves the old one."""
        part = self._path.with_suffix(".part")
        torch.save(state, part)
        part.replace(self._path)
        self._saved = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether to save now."""
        return step == self.steps or time.monotonic() - self._saved > EVERY

    def tell(self, step: int, loss: float, note: str = "") -> None:
        """The progress line, at most once in ten seconds."""
        now = time.monotonic()
        if self._since is None:
            self._since = (now, step)
        if now - self._told < _LINE and step < self.steps:
            return
        self._told = now
        began, first = self._since
        pace = (now - began) / max(1, step - first)
        left = pace * (self.steps - step) / 60
        sys.stdout.write(
            f"{self._stage} {step}/{self.steps}  loss {loss:.4f}  {pace:.2f} s a step  "
            f"{time.process_time():.0f} s CPU  {left:.0f} min left {note}\n"
        )
        sys.stdout.flush()


def threads() -> int:
    """How many threads torch may use: FLUXFARM_TRAINING_THREADS, else all cores."""
    return int(os.environ.get("FLUXFARM_TRAINING_THREADS", "0")) or os.cpu_count() or 1
