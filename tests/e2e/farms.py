"""A whole farm as a user starts it: ``fluxfarm up`` in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from fluxfarm import farmfile
from fluxfarm.client import Client
from fluxfarm.farmfile import RunningFarm
from tests.conftest import ROOT

KLEIN = "fluxfarm/flux-2-klein-small"
FINAL = {"SUCCESS", "FAILED", "CANCELED"}
QUICK = {
    "FLUXFARM_PORT": "0",
    "FLUXFARM_FLOWER_PORT": "0",
    "FLUXFARM_LEASE": "4",
    "FLUXFARM_LEASE_RENEWAL": "1",
    "FLUXFARM_SWEEP_INTERVAL": "1",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Running:
    """A farm that is ready, and the ways in."""

    farm: RunningFarm
    data_dir: Path
    process: subprocess.Popen[bytes]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.farm.api_key}"}

    def client(self) -> Client:
        return Client(self.farm.url, self.farm.api_key)

    def post(self, prompt_object: dict[str, Any], **fields: Any) -> httpx.Response:
        body = {"type": "IMAGE_GENERATOR", "model": KLEIN, "promptObject": prompt_object, **fields}
        return httpx.post(f"{self.farm.url}/v1/jobs", json=body, headers=self.headers, timeout=70)

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        return httpx.get(f"{self.farm.url}{path}", headers=self.headers, params=parameters, timeout=70)

    def record(self, uuid: str, wait: int = 0) -> dict[str, Any]:
        record: dict[str, Any] = self.get(f"/v1/jobs/{uuid}", wait=wait).json()["aiRecord"]
        return record

    def finished(self, uuid: str, seconds: float = 60.0) -> dict[str, Any]:
        """POST, then poll: as the callers of the seeds do it."""
        end = time.monotonic() + seconds
        while (record := self.record(uuid))["status"] not in FINAL:
            assert time.monotonic() < end, record
            time.sleep(0.05)
        return record

    def pids(self) -> dict[str, int]:
        found = farmfile.read(self.data_dir)
        assert found is not None
        return found.pids


@contextmanager
def running(data_dir: Path, **environment: str) -> Iterator[Running]:
    said = data_dir.parent / f"{data_dir.name}.log"
    with said.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "fluxfarm", "up"],
            env={**clean_environment(), **QUICK, "FLUXFARM_DATA_DIR": str(data_dir), **environment},
            cwd=data_dir.parent,
            stdout=output,
            stderr=output,
        )
    try:
        wait_for(lambda: farmfile.read(data_dir) or process.poll() is not None, 120)
        farm = farmfile.read(data_dir)
        assert farm is not None, said.read_text(errors="replace")
        yield Running(farm, data_dir, process)
    finally:
        process.send_signal(signal.SIGTERM)
        ended = process.wait(timeout=60)
        assert ended in (0, -signal.SIGKILL), said.read_text(errors="replace")  # only a test kills it


def clean_environment() -> dict[str, str]:
    """The environment without the farm's own settings, and with the checkout on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLUXFARM_", "S3_"))}
    kept.pop("DATABASE_URL", None)
    kept.pop("REDIS_URL", None)
    return kept | {"PYTHONPATH": str(ROOT)}


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
