"""A farm of its own for a measurement, started as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fluxfarm import farmfile
from fluxfarm.farmfile import RunningFarm

START = 300.0  #: seconds


@contextmanager
def running_farm(**environment: str) -> Iterator[RunningFarm]:
    """``fluxfarm up`` on free ports and an empty data folder, and how to reach it; all of it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="fluxfarm-bench-") as folder:
        data_dir = Path(environment.get("FLUXFARM_DATA_DIR", Path(folder) / "data"))
        ours = {"FLUXFARM_DATA_DIR": str(data_dir), "FLUXFARM_PORT": "0", "FLUXFARM_FLOWER_PORT": "0"}
        ours["FLUXFARM_RATE_LIMIT"] = "100000000"  # counted as ever, but never reached
        process = subprocess.Popen(
            [sys.executable, "-m", "fluxfarm", "up"],
            env={**os.environ, "FLUXFARM_LOG_LEVEL": "WARNING", **ours, **environment},
            stdout=subprocess.DEVNULL,
        )
        try:
            end = time.monotonic() + START
            while (farm := farmfile.read(data_dir)) is None:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("the farm did not start; run `fluxfarm up` to see why")
                time.sleep(0.1)
            yield farm
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
