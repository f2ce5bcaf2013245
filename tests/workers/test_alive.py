from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fluxfarm.settings import Settings
from workers import alive


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "alive"
    monkeypatch.setenv("FLUXFARM_ALIVE_FILE", str(place))
    return place


def test_a_process_that_touches_its_file_lives(file: Path) -> None:
    alive.touch(file)
    assert alive.main() == 0


def test_one_that_was_silent_for_long_or_never_spoke_does_not(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert alive.main() == 1
    assert "has not started" in capsys.readouterr().err
    alive.touch(file)
    before = time.time() - 31
    os.utime(file, (before, before))
    assert alive.main() == 1
    assert "silent for 31 s; 30 s are allowed" in capsys.readouterr().err


def test_without_a_file_nothing_is_touched_and_nothing_claimed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FLUXFARM_ALIVE_FILE", raising=False)
    alive.touch(None)
    assert alive.main() == 1
    assert "FLUXFARM_ALIVE_FILE" in capsys.readouterr().err


def test_the_pulse_beats_until_it_is_stopped(file: Path) -> None:
    settings = Settings().model_copy(update={"lease_renewal": 0.01})
    pulse = alive.Pulse(settings)
    pulse.start()
    deadline = time.monotonic() + 5
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    first = file.stat().st_mtime_ns
    while file.stat().st_mtime_ns == first and time.monotonic() < deadline:
        time.sleep(0.005)
    assert file.stat().st_mtime_ns > first
    pulse.stop()
