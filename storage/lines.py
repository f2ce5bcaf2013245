"""The lines from an event loop to the database: no thread, no session, one prepared statement at a time.

Each statement is a transaction of its own. By way of a thread and the ORM the same costs several times the processor
time (docs/decisions/0018).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final
from typing import cast as typed

import psycopg
from psycopg.abc import RV, PQGen
from pydantic import SecretStr
from sqlalchemy import ClauseElement, Executable, make_url, text

from fluxfarm.errors import DatabaseUnavailable
from storage.database import ANSWER, ARGUMENTS, POOL_TIMEOUT, REST, RETRY_AFTER, UNCHANGED, UNKNOWN, libpq_url

CONNECTIONS: Final = 8  #: the loop has one thread; more would only wait for it
BUSY: Final = "Every database connection for this is in use; try again in a moment."

#: how a statement must be compiled to be sent here
DIALECT: Final = make_url("postgresql+psycopg://").get_dialect()()

Found = list[tuple[Any, ...]]


class Statement:
    """A statement of the repository as the bare driver takes it: built and compiled once, as that costs the most."""

    def __init__(self, statement: Executable) -> None:
        """Its values are given with each call, but for those that are written in it."""
        compiled = typed("ClauseElement", statement).compile(dialect=DIALECT)
        self.sql: Final = str(compiled)
        self.fixed: Final = {name: value for name, value in compiled.params.items() if value is not None}


PROBE: Final = Statement(text("SELECT 1"))


class Lines:
    """The connections of one loop; they are opened when they are needed, and the last one that was used is taken."""

    def __init__(self, url: SecretStr) -> None:
        """``url`` is the database's."""
        self._url = url
        self._idle: list[_Connection] = []
        self._room = asyncio.Semaphore(CONNECTIONS)

    async def ask(self, statement: Statement, parameters: Mapping[str, Any]) -> Found:
        """What a statement finds that changes nothing: a server that began anew is asked again.

        Raises:
            DatabaseUnavailable: it cannot be reached, went away or is silent, or all connections are in use.
        """
        async with self._place():
            with _translated(UNCHANGED):
                if self._idle:
                    connection = self._idle.pop()
                    try:
                        return await self._on(connection, statement, parameters)
                    except psycopg.OperationalError:
                        if connection.is_silent or not connection.closed:
                            raise
                        await self.close()  # the server began anew: the others are broken as well
                return await self._on(await self._connect(), statement, parameters)

    async def change(self, statement: Statement, parameters: Mapping[str, Any]) -> Found:
        """What a statement gives that changes something; it is sent once, on a connection that has just answered.

        Raises:
            DatabaseUnavailable: as above; the message says whether nothing was changed, or that nobody knows.
            psycopg.Error: the database refused it, and nothing was changed.
        """
        async with self._place():
            with _translated(UNCHANGED):
                connection = await self._proven()
            with _translated(UNKNOWN):
                return await self._on(connection, statement, parameters)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._room.locked():
            try:
                async with asyncio.timeout(POOL_TIMEOUT):
                    await self._room.acquire()
            except TimeoutError as error:
                raise DatabaseUnavailable(BUSY, retry_after=RETRY_AFTER) from error
        else:
            await self._room.acquire()  # at once
        try:
            yield
        finally:
            self._room.release()

    async def _proven(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if time.monotonic() - connection.rested_at < REST:
                return connection
            try:
                await self._on(connection, PROBE, {})
            except psycopg.OperationalError:
                if connection.is_silent:
                    raise
                await self.close()
        return await self._connect()

    async def _connect(self) -> _Connection:
        return await _Connection.connect(libpq_url(self._url), autocommit=True, **ARGUMENTS)

    async def _on(self, connection: _Connection, statement: Statement, parameters: Mapping[str, Any]) -> Found:
        try:
            cursor = await connection.execute(statement.sql, {**statement.fixed, **parameters}, prepare=True)
            rows = await cursor.fetchall()
        except psycopg.Error:
            if not connection.closed:
                self._rest(connection)
            raise
        except BaseException:
            await connection.close()
            raise
        self._rest(connection)
        return rows

    def _rest(self, connection: _Connection) -> None:
        connection.rested_at = time.monotonic()
        self._idle.append(connection)

    async def close(self) -> None:
        """Give the connections that are not in use back to the server."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()


@contextmanager
def _translated(silent: str) -> Iterator[None]:
    try:
        yield
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(silent, retry_after=RETRY_AFTER) from error


class _Connection(psycopg.AsyncConnection[Any]):
    """Gives up a server that does not answer at all; the driver would go on to wait for it, or for its cancellation."""

    is_silent = False
    rested_at = 0.0  #: by the monotonic clock

    async def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:  # noqa: ASYNC109 - the driver's own
        try:
            return await super().wait(gen, interval, timeout or ANSWER)
        except psycopg.OperationalError:
            status = self.pgconn.transaction_status
            self.is_silent = status == psycopg.pq.TransactionStatus.ACTIVE  # its answer is still to come
            if status != psycopg.pq.TransactionStatus.IDLE:
                self.pgconn.finish()
            raise
