"""The stream of a page's parts while the database comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from api.dashboard import live
from fluxfarm.errors import DatabaseUnavailable, NotFound


def test_trouble_is_told_and_its_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LOOK", 0.0)
    monkeypatch.setattr(live, "SILENCE", 2)
    seen: Iterator[object] = iter(
        [
            {"a": "1"},
            {"a": "1"},
            {"a": "1"},
            DatabaseUnavailable("gone"),
            {"a": "2", "b": "1"},
            NotFound("It was erased."),
        ]
    )

    def read() -> dict[str, str]:
        found = next(seen)
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, dict)
        return found

    async def follow() -> list[str]:
        reply = await live.parts(read)
        return [bytes(part).decode() async for part in reply.body_iterator if isinstance(part, bytes)]

    told = asyncio.run(follow())
    assert [part.split("\n")[0] for part in told] == [
        *("event: part", "event: alive", "event: trouble", "event: fine"),
        *("event: part", "event: part", "event: over"),
    ]
    assert '"It was erased."' in told[-1]
