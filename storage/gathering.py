"""Group work: what is asked while the database is busy for the same one is asked together next, in one statement.

Whoever comes alone waits for nobody; of twenty that come at once, the first goes alone and nineteen share the next
statement, with its one round trip and its one commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Final, Generic, TypeVar

from fluxfarm.errors import DatabaseUnavailable
from storage.database import RETRY_AFTER, UNCHANGED

MOST: Final = 50  #: that share a statement

Whose = TypeVar("Whose", bound=Hashable)
Asked = TypeVar("Asked")
Told = TypeVar("Told")
Line = list[tuple[Asked, "asyncio.Future[Told]"]]


class Gathering(Generic[Whose, Asked, Told]):
    """Only what belongs to the same one is gathered, so that nobody waits for another's locks."""

    def __init__(self, work: Callable[[Whose, Sequence[Asked]], Awaitable[Sequence[Told]]]) -> None:
        """``work`` gives an answer for each that is asked, in their order.

        It does all or nothing: after any error but DatabaseUnavailable it is called again for each alone, so that one
        harms no other.
        """
        self._work = work
        self._lines: dict[Whose, Line[Asked, Told]] = {}
        self._working: set[asyncio.Task[None]] = set()  # the loop itself keeps no hold of a task

    async def ask(self, whose: Whose, asked: Asked) -> Told:
        """The answer to one; what is looked up for it is looked up after this call.

        Raises:
            DatabaseUnavailable: the database did not answer it, or those before it.
        """
        told: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        line = self._lines.get(whose)
        if line is None:
            line = self._lines[whose] = []
            task = asyncio.create_task(self._serve(whose, line))
            self._working.add(task)
            task.add_done_callback(self._working.discard)
        line.append((asked, told))
        return await told

    async def _serve(self, whose: Whose, line: Line[Asked, Told]) -> None:
        try:
            while line:
                together = line[:MOST]
                del line[:MOST]
                try:
                    await self._answer(whose, together)
                except DatabaseUnavailable:
                    _refuse(line)
        finally:
            del self._lines[whose]
            _refuse(line)

    async def _answer(self, whose: Whose, together: Line[Asked, Told]) -> None:
        try:
            found = await self._work(whose, [asked for asked, _ in together])
        except Exception as error:
            if len(together) > 1 and not isinstance(error, DatabaseUnavailable):
                for one in together:
                    await self._answer(whose, [one])
                return
            for _, told in together:
                if not told.done():
                    told.set_exception(error)
            if isinstance(error, DatabaseUnavailable):
                raise
            return
        for (_, told), answer in zip(together, found, strict=True):
            if not told.done():  # its caller has gone
                told.set_result(answer)


def _refuse(line: Line[Asked, Told]) -> None:
    """Those who wait behind one that got no answer do not wait as long once more; nothing was sent for them."""
    for _, told in line:
        if not told.done():
            told.set_exception(DatabaseUnavailable(UNCHANGED, retry_after=RETRY_AFTER))
    line.clear()
