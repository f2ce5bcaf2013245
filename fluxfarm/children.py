"""The long-lived children of the supervisor: a process made from a part, and the patience with one that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from fluxfarm import processes
from fluxfarm.errors import FluxfarmError
from fluxfarm.parts import Part

FIRST_PAUSE: Final = 0.5  #: seconds before the first restart
LONGEST_PAUSE: Final = 10.0  #: seconds; each restart doubles the pause up to this
STEADY: Final = 30.0  #: seconds of life after which a death counts as the first again


class Startable(Protocol):
    """A child process, or an embedded server."""

    @property
    def pid(self) -> int | None:
        """Its pid while it runs."""

    def start(self) -> object:
        """Start it, or start it again."""


class Child:
    """One part's process, in its own session, its output in a log of its own."""

    def __init__(self, part: Part, *, log: Path, cwd: Path, env: Mapping[str, str]) -> None:
        """Nothing is started yet."""
        self.part = part
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self._cwd = cwd
        self._env = {**env, **part.env}

    @property
    def pid(self) -> int | None:
        """Its pid while it runs."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def start(self) -> None:
        """Start the process; what an earlier one left in its session is ended first."""
        self.clear()
        self.process = processes.spawn(self.part.argv, log=self.log, cwd=self._cwd, env=self._env)

    def clear(self) -> None:
        """End what a dead process left in its session: a tool that it had started, say."""
        if self.process is not None and self.process.poll() is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended the last process, and not its own decision."""
        code = self.process.poll() if self.process is not None else None
        return code is not None and code < 0

    @property
    def ending(self) -> str:
        """How the last process ended, in words."""
        code = self.process.poll() if self.process is not None else None
        if code is None:
            return "runs"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


class Keeper:
    """Starts one thing again when it dies: soon at first, then ever more slowly."""

    def __init__(self, name: str, thing: Startable) -> None:
        """``thing`` runs already."""
        self.name = name
        self.thing = thing
        self.restarts = 0
        self._pause = FIRST_PAUSE
        self._due: float | None = None
        self._started = time.monotonic()

    def tend(self, now: float) -> str | None:
        """Look after it; a text when something happened. ``now`` is monotonic, in seconds."""
        if self.thing.pid is not None:
            if now - self._started > STEADY:
                self._pause = FIRST_PAUSE
            return None
        if self._due is None:
            pause, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE)
            self._due = now + pause
            ending = self.thing.ending if isinstance(self.thing, Child) else "ended"
            return f"{self.name} {ending}; it starts again in {pause:g} s."
        if now < self._due:
            return None
        self._due = None
        self._started = now
        self.restarts += 1
        try:
            self.thing.start()
        except (FluxfarmError, OSError) as error:
            return f"{self.name} did not start again: {error}"
        return f"{self.name} runs again (restart {self.restarts})."
