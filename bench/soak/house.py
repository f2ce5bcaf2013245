"""The farm under test as its operator sees it: started, killed as a whole, started again; its processes by name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psycopg

from fluxfarm import farmfile, processes
from fluxfarm.embedded import free_port
from fluxfarm.farmfile import PIDS, RunningFarm

START: Final = 600.0  #: seconds; a busy machine loads two workers slowly


class House:
    """One farm in a folder; its port and its data outlive each of its runs."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Nothing is started yet; ``environment`` is added to this process's own."""
        self.data = folder / "data"
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self._log = folder / "up.log"
        self._env = {
            **os.environ,
            "FLUXFARM_DATA_DIR": str(self.data),
            "FLUXFARM_PORT": str(port),
            "FLUXFARM_FLOWER_PORT": str(free_port()),
            **environment,
        }
        self.is_up = False
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> RunningFarm:
        """Start it and wait until it is ready; again when it gave up because a server of its own was away."""
        until = time.monotonic() + START
        while True:
            with self._log.open("ab") as log:
                command = [sys.executable, "-m", "bench.soak.parts", "up"]
                self._process = subprocess.Popen(command, env=self._env, stdout=log, stderr=log)
            while self._process.poll() is None:
                if (farm := farmfile.find(self.data)) is not None:
                    self.is_up = True
                    return farm
                if time.monotonic() > until:
                    raise RuntimeError(f"the farm did not start: {processes.last_lines(self._log)}")
                time.sleep(0.1)
            if time.monotonic() > until:
                raise RuntimeError(f"the farm did not start: {processes.last_lines(self._log)}")

    def kill(self) -> None:
        """SIGKILL of ``fluxfarm up``: the kernel takes all that it had started with it."""
        assert self._process is not None
        self.is_up = False
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """The orderly end."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(timeout=90)

    def pids(self) -> dict[str, int]:
        """What lives at this moment; a pid that belongs to another program by now is not among them."""
        known = processes.recall(self.data / PIDS)
        return {name: one.pid for name, one in known.items() if one.is_alive()}

    def send(self, part: str, number: signal.Signals) -> int | None:
        """Signal a part; gives its pid, or None when it is down."""
        pid = self.pids().get(part)
        with suppress(ProcessLookupError):
            if pid is not None:
                os.kill(pid, number)
                return pid
        return None

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the farm's database behind the farm's back."""
        url = f"postgresql://postgres@/postgres?host={quote(str(self.data / 'postgres' / 'data'), safe='')}"
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []
