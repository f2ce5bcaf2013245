"""The timer that ends a process whose render stands still."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from workers.watchdog import Watchdog


@pytest.fixture
def armed(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds to which the timer was set; empty: it is off."""
    seconds: list[float] = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda timeout, **_: seconds.append(timeout))
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", seconds.clear)
    return seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("workers.watchdog.time", SimpleNamespace(monotonic=lambda: made.now))
    return made


@pytest.fixture
def other() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_the_one_that_is_silent_for_the_longest_sets_the_timer(
    armed: list[float], clock: SimpleNamespace, other: ThreadPoolExecutor
) -> None:
    dog = Watchdog(100)
    dog.alive()
    assert not armed, "nobody is watched"
    inside = ExitStack()
    with dog.watching():
        assert armed[-1] == 100
        clock.now += 60
        other.submit(inside.enter_context, dog.watching()).result()
        assert armed[-1] == 40, "a second one that begins does not help the first"
        other.submit(dog.alive).result()
        assert armed[-1] == 40
        clock.now += 30
        dog.alive()
        assert armed[-1] == 70
        clock.now += 5
    assert armed[-1] == 65, "nor does the end of the first help the second"
    clock.now += 80
    with dog.watching():
        assert 0 < armed[-1] < 1, "it should have gone off already"
    other.submit(inside.close).result()
    assert not armed
