from __future__ import annotations

import math
import time

from prometheus_client import REGISTRY

from storage.repository.workers import Reading
from workers import meter, readings


def test_on_a_cpu_the_memory_of_the_process_is_told_and_nothing_that_nobody_saw() -> None:
    with meter.watching("cpu") as looks:
        kept = bytes(50_000_000)
    told = looks.told()
    assert set(told) == {"peakMemoryBytes"}
    assert len(kept) < told["peakMemoryBytes"] < 2**40


def test_looks_are_taken_beside_the_render_and_the_means_are_told() -> None:
    seen = iter(
        [(Reading(memory_used=10, utilisation=0.0), 100.0), (Reading(memory_used=30, utilisation=1.0), None)]
        + [(Reading(memory_used=20), None)] * 100
    )
    with meter.watching("cpu", lambda: next(seen)) as looks:
        time.sleep(meter.INTERVAL * 1.5)
    assert looks.told() == {"peakMemoryBytes": 30, "utilisation": 0.5, "watts": 100.0}
    assert len(looks._seen) >= 3


def test_prometheus_sees_the_device() -> None:
    meter.show("cpu")
    values = {
        name: REGISTRY.get_sample_value(f"fluxfarm_device_{name}", {"device": "cpu"})
        for name in ("memory_bytes", "utilisation", "watts")
    }
    assert abs((values["memory_bytes"] or 0) - readings.resident()) < 2**28
    assert math.isnan(values["utilisation"] or 0)
    assert math.isnan(values["watts"] or 0)
