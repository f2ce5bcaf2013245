"""What comes together shares a statement, and nobody is harmed by those beside."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from fluxfarm.errors import DatabaseUnavailable
from storage.gathering import MOST, Gathering


class Work:
    """Doubles numbers, one batch at a time for each name, and keeps what it was asked."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.gate = asyncio.Event()

    async def __call__(self, name: str, numbers: Sequence[int]) -> list[int]:
        self.batches.append((name, list(numbers)))
        await self.gate.wait()
        if 13 in numbers:
            raise ValueError("13")
        if 666 in numbers:
            raise DatabaseUnavailable("silence")
        return [2 * number for number in numbers]


def asking(work: Work, *asked: tuple[str, int]) -> list[int | BaseException]:
    """The answers, when the first of each name is under way before the others come."""

    async def run() -> list[int | BaseException]:
        gathering = Gathering(work)
        tasks = []
        for name, number in asked:
            tasks.append(asyncio.create_task(gathering.ask(name, number)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        work.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(run())


def test_the_first_goes_alone_and_the_others_together() -> None:
    work = Work()
    assert asking(work, *(("a", number) for number in range(4))) == [0, 2, 4, 6]
    assert work.batches == [("a", [0]), ("a", [1, 2, 3])]


def test_each_name_has_a_line_of_its_own() -> None:
    work = Work()
    assert asking(work, ("a", 1), ("b", 2), ("a", 3), ("b", 4)) == [2, 4, 6, 8]
    assert sorted(work.batches) == [("a", [1]), ("a", [3]), ("b", [2]), ("b", [4])]


def test_a_line_is_served_in_pieces() -> None:
    work = Work()
    asking(work, *(("a", number) for number in range(14, MOST + 17)))
    assert [len(numbers) for _, numbers in work.batches] == [1, MOST, 2]


def test_an_error_harms_only_its_own_call() -> None:
    work = Work()
    first, bad, good = asking(work, ("a", 1), ("a", 13), ("a", 3))
    assert (first, good) == (2, 6)
    assert isinstance(bad, ValueError)
    assert work.batches[1:] == [("a", [13, 3]), ("a", [13]), ("a", [3])]


def test_behind_a_silent_database_nobody_waits_once_more() -> None:
    work = Work()
    found = asking(work, ("a", 666), ("a", 2), ("b", 3))
    assert found[2] == 6
    for error, told in zip(found[:2], ("silence", "nothing was changed"), strict=True):
        assert isinstance(error, DatabaseUnavailable)
        assert told in error.message
    assert ("a", [2]) not in work.batches


def test_a_caller_that_goes_takes_nobody_with_it() -> None:
    work = Work()

    async def run() -> int:
        gathering = Gathering(work)
        goes, stays = (asyncio.create_task(gathering.ask("a", number)) for number in (1, 2))
        await asyncio.sleep(0)
        goes.cancel()
        work.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await goes
        return await stays + await gathering.ask("a", 3)

    assert asyncio.run(run()) == 10
