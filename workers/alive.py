"""``python -m workers.alive``: whether the worker of this container lives, by the age of the file that it touches.

A probe that asked Celery would start a second Python with all of it every half minute.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Final

from fluxfarm.settings import Settings

OLDEST: Final = 3.0  #: renewals of a lease that may be missed


def touch(path: Path | None) -> None:
    """Say that the process lives; without a path nobody asks."""
    if path is not None:
        path.touch()


class Pulse:
    """Touches the file from a thread, for processes that keep no leases."""

    def __init__(self, settings: Settings) -> None:
        self._path, self._pause = settings.alive_file, settings.lease_renewal
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Begin, if anybody asks."""
        if self._path is not None:
            self._thread.start()

    def stop(self) -> None:
        """End."""
        self._ended.set()

    def _run(self) -> None:
        touch(self._path)
        while not self._ended.wait(self._pause):
            touch(self._path)


def main() -> int:
    """0: it lives; 1 and a sentence: it was silent for too long, or never started."""
    settings = Settings()
    if settings.alive_file is None:
        sys.stderr.write("FLUXFARM_ALIVE_FILE names no file: nothing can be said.\n")
        return 1
    limit = OLDEST * settings.lease_renewal
    try:
        age = time.time() - settings.alive_file.stat().st_mtime
    except OSError:
        sys.stderr.write(f"{settings.alive_file} does not exist: the process has not started.\n")
        return 1
    if age > limit:
        sys.stderr.write(f"The process was silent for {age:.0f} s; {limit:.0f} s are allowed.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
