"""What a heartbeat tells of the device; a torch with a GPU is acted by one of the same functions."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from storage.repository.workers import Reading
from workers import readings


def gpu(*, load: object = 97, memory: object = (20 * 2**30, 80 * 2**30)) -> SimpleNamespace:
    """A torch that has used its GPU; what is an exception is raised."""

    def tell(value: object) -> object:
        if isinstance(value, Exception):
            raise value
        return value

    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        mem_get_info=lambda device: tell(memory),  # noqa: ARG005 - torch's own names
        utilization=lambda device: tell(load),  # noqa: ARG005
    )
    return SimpleNamespace(cuda=cuda)


def test_a_gpu_tells_its_memory_and_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", gpu())
    told = Reading(memory_used=60 * 2**30, memory_total=80 * 2**30, utilisation=0.97)
    assert readings.read("cuda:0") == told
    monkeypatch.setitem(sys.modules, "torch", gpu(load=ModuleNotFoundError("pynvml")))
    assert readings.read("cuda").utilisation is None


def test_without_a_gpu_the_process_tells_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", gpu(memory=RuntimeError("the device is lost")))
    for device in ("cpu", "fal", "cuda"):
        told = readings.read(device)
        assert 10 * 2**20 < told.memory_used < 64 * 2**30, device
        assert (told.memory_total, told.utilisation) == (None, None)
    block = bytearray(b"x" * 200 * 2**20)
    assert readings.resident() - told.memory_used > 100 * 2**20
    assert len(block) > 0
    monkeypatch.setattr(readings, "STATM", readings.STATM / "nothing")
    assert readings.resident() > 10 * 2**20
