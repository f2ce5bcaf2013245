"""A RabbitMQ of the tests' own, from Debian's package, on loopback and in a folder."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from fluxfarm import processes
from fluxfarm.embedded import free_port
from tests.programs import needed

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  #: behind Debian's wrapper, which would become another user
START = 60.0  #: seconds


class Rabbit:
    """One broker; it keeps what it holds over a restart."""

    def __init__(self, folder: Path) -> None:
        found = Path(needed("rabbitmq-server", "Debian's rabbitmq-server"))
        self._program = SERVER if SERVER.exists() else found
        self._folder = folder
        self._log = folder / "said.log"
        self._port, self._distribution, self._names = free_port(), free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}//"
        for name, content in (("rabbitmq.conf", ""), ("plugins", "[].")):
            (folder / name).write_text(content, encoding="ascii")

    def start(self) -> None:
        """Wait until it takes connections."""
        self._log.write_bytes(b"")
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "RABBITMQ_NODENAME": f"farm{self._port}@localhost",
            "RABBITMQ_MNESIA_BASE": str(self._folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "ERL_EPMD_PORT": str(self._names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq.conf"),
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
        }
        self._process = processes.spawn([str(self._program)], log=self._log, cwd=self._folder, env=env)
        end = time.monotonic() + START
        while b"completed with" not in self._log.read_bytes():
            assert time.monotonic() < end, processes.last_lines(self._log, 30)
            assert self._process.poll() is None, processes.last_lines(self._log, 30)
            time.sleep(0.1)

    def send(self, number: signal.Signals) -> None:
        """Signal the script and all that it has started but the daemon of names."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def stop(self) -> None:
        """End it; the daemon of names that it has started stays until ``close``."""
        if self._process is not None:
            processes.end(self._process, ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0)))
            self._process = None

    def close(self) -> None:
        """Leave nothing running."""
        self.stop()
        epmd = ["epmd", "-port", str(self._names)]
        subprocess.run([*epmd, "-kill"], check=False, capture_output=True, timeout=10)
        left = subprocess.run([*epmd, "-names"], check=False, capture_output=True, timeout=10)
        assert left.returncode != 0, f"the daemon of names still runs: {left.stdout!r}"
