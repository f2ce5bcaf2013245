"""fal's keys: strangers with bad signatures cannot make the farm ask for them again and again."""

from __future__ import annotations

import json
import time

import pytest

from api.jwks import PAUSE, Jwks
from fluxfarm.errors import UnreachableUrl
from fluxfarm.inbound import JWKS_SECONDS
from tests.stubs.hooks import fal_jwks


class Source:
    """Counts who asks; may be away, or write nonsense."""

    def __init__(self) -> None:
        self.asked = 0
        self.away = False
        self.body = json.dumps(fal_jwks()).encode()

    def __call__(self) -> bytes:
        self.asked += 1
        if self.away:
            raise UnreachableUrl("It is away.")
        return self.body


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [time.monotonic()]
    monkeypatch.setattr("api.jwks.time.monotonic", lambda: now[0])
    return now


def test_bad_signatures_cost_one_fetch_a_minute(clock: list[float]) -> None:
    source = Source()
    keys = Jwks(source)
    known = keys.keys(fresh=False)
    for _ in range(1_000):
        assert keys.keys(fresh=True) == known
        clock[0] += PAUSE / 500
    assert source.asked == 2  # at the start, and once in two minutes less a moment
    for _ in range(10):
        keys.keys(fresh=False)
    clock[0] += JWKS_SECONDS
    keys.keys(fresh=False)
    assert source.asked == 3


@pytest.mark.parametrize("how", ["away", "nonsense"])
def test_known_keys_outlive_a_fetch_that_fails(clock: list[float], how: str) -> None:
    source = Source()
    keys = Jwks(source)
    known = keys.keys(fresh=False)
    source.away, source.body = how == "away", b"<html>"
    clock[0] += PAUSE + 1
    assert keys.keys(fresh=True) == known
    assert source.asked == 2


def test_without_any_key_strangers_wait_a_minute_too(clock: list[float]) -> None:
    source = Source()
    source.away = True
    keys = Jwks(source)
    for _ in range(20):
        with pytest.raises(UnreachableUrl):
            keys.keys(fresh=True)
    assert source.asked == 1
    source.away = False
    clock[0] += PAUSE + 1
    assert keys.keys(fresh=True)
