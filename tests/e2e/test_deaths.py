"""What is killed comes back, and the job that it had ends once."""

from __future__ import annotations

import os
import signal
import time

import httpx
import pytest

from tests.e2e.farms import Running, wait_for

pytestmark = pytest.mark.xdist_group("farm")
PATIENCE = 60.0  #: seconds until a render begins beside the other half of the suite


def test_a_killed_worker_is_started_again_and_its_job_ends_once(farm: Running) -> None:
    slow = farm.post({"prompt": "slow", "size": "256x256", "num_inference_steps": 50, "n": 2}).json()["aiRecord"]
    wait_for(lambda: farm.record(slow["uuid"])["progress"]["step"] > 0, PATIENCE)
    worker = farm.pids()["worker"]
    killed_at = time.monotonic()
    os.kill(worker, signal.SIGKILL)
    wait_for(
        lambda: farm.record(slow["uuid"])["status"] == "RUNNING" and len(farm.record(slow["uuid"])["attempts"]) == 2, 45
    )
    assert time.monotonic() - killed_at < 45
    record = farm.finished(slow["uuid"], seconds=90)
    assert record["status"] == "SUCCESS"
    assert [attempt["status"] for attempt in record["attempts"]] == ["FAILED", "SUCCESS"]
    assert record["attempts"][0]["error"]["code"] == "worker_lost"
    assert len(record["temporaryUrls"]) == 2
    assert all(f"/{record['uuid']}/2/" in key for key in record["aiRecordDetail"]["resultObject"])


def test_a_frozen_worker_that_wakes_changes_nothing(farm: Running) -> None:
    """SIGSTOP past the lease, then SIGCONT: the zombie finds its lease over and its objects are not referenced."""
    slow = farm.post({"prompt": "zombie", "size": "256x256", "num_inference_steps": 50, "n": 3}).json()["aiRecord"]
    wait_for(lambda: farm.record(slow["uuid"])["progress"]["step"] > 0, PATIENCE)
    worker = farm.pids()["worker"]
    os.kill(worker, signal.SIGSTOP)
    try:
        wait_for(lambda: farm.record(slow["uuid"])["status"] == "QUEUED", 20)
    finally:
        os.kill(worker, signal.SIGCONT)
    record = farm.finished(slow["uuid"], seconds=90)
    assert record["status"] == "SUCCESS"
    assert [attempt["number"] for attempt in record["attempts"]] == [1, 2]
    assert all(f"/{record['uuid']}/2/" in key for key in record["aiRecordDetail"]["resultObject"])
    left = [path for path in (farm.data_dir / "objects").rglob("*.webp") if record["uuid"] in str(path)]
    assert len(left) == 3


@pytest.mark.parametrize("part", ["valkey", "postgres"])
def test_a_server_that_dies_is_started_again(farm: Running, part: str) -> None:
    before = farm.pids()[part]
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: farm.pids()[part] != before, 30)

    def renders_again() -> bool:
        try:
            reply = farm.post({"prompt": "again", "size": "64x64"})
        except httpx.HTTPError:
            return False
        return reply.status_code == 202 and farm.finished(reply.json()["aiRecord"]["uuid"])["status"] == "SUCCESS"

    wait_for(renders_again, 30)
