"""What callers ask most, how one job is, on the event loop: no thread, no session, no object that is tracked.

By way of a thread and the ORM the same look costs six times the processor time (docs/decisions/0018).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.abc import RV, PQGen
from pydantic import SecretStr
from sqlalchemy import make_url

from fluxfarm.errors import DatabaseUnavailable
from storage import keys
from storage.database import ANSWER, ARGUMENTS, POOL_TIMEOUT, RETRY_AFTER, UNCHANGED, libpq_url
from storage.records import Job
from storage.repository.jobs import OWNED, READ_AS, no_job
from storage.repository.reading import Rows
from storage.repository.tenants import Caller, known

CONNECTIONS: Final = 8  #: the loop has one thread; more would only wait for it
BUSY: Final = "Every database connection for polls is in use; try again in a moment."

_DIALECT: Final = make_url("postgresql+psycopg://").get_dialect()()
_READ_AS: Final = Rows(READ_AS, _DIALECT)
_OWNED: Final = Rows(OWNED, _DIALECT)


class Polls:
    """The connections of one process; they are opened when they are needed, and the last one that was used is taken."""

    def __init__(self, url: SecretStr) -> None:
        """``url`` is the database's."""
        self._url = url
        self._idle: list[_Connection] = []
        self._room = asyncio.Semaphore(CONNECTIONS)

    async def read_as(self, secret: str, uuid: UUID, check: Callable[[Caller], object]) -> tuple[Job, Caller]:
        """A job of the tenant whose key passes ``check``, and whose key it is.

        Raises:
            Unauthorized: an unknown, expired or revoked key.
            NotFound: no such job, or somebody else's.
            DatabaseUnavailable: the server cannot be reached, went away or is silent, or all connections are in use.
        """
        row = await self._row(_READ_AS.sql, {"digest": keys.digest(secret), "uuid": uuid})
        caller = known(None if row is None else _READ_AS.rest(row))
        check(caller)
        if row is None or row[0] is None:
            raise no_job(uuid)
        return _READ_AS.job(row), caller

    async def read(self, tenant_id: UUID, uuid: UUID) -> Job:
        """The tenant's job: for those who wait for it.

        Raises:
            NotFound, DatabaseUnavailable: as above.
        """
        row = await self._row(_OWNED.sql, {"tenant_id": tenant_id, "uuid": uuid})
        if row is None:
            raise no_job(uuid)
        return _OWNED.job(row)

    async def _row(self, statement: str, parameters: dict[str, Any]) -> tuple[Any, ...] | None:
        try:
            async with asyncio.timeout(POOL_TIMEOUT):
                await self._room.acquire()
        except TimeoutError as error:
            raise DatabaseUnavailable(BUSY, retry_after=RETRY_AFTER) from error
        try:
            return await self._ask(statement, parameters)
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(UNCHANGED, retry_after=RETRY_AFTER) from error
        finally:
            self._room.release()

    async def _ask(self, statement: str, parameters: dict[str, Any]) -> tuple[Any, ...] | None:
        if self._idle:
            connection = self._idle.pop()
            try:
                return await self._ask_on(connection, statement, parameters)
            except psycopg.OperationalError:
                if connection.is_silent:
                    raise
                await self.close()  # the server began anew: the others are broken as well
        made = await _Connection.connect(libpq_url(self._url), autocommit=True, **ARGUMENTS)
        return await self._ask_on(made, statement, parameters)

    async def _ask_on(
        self, connection: _Connection, statement: str, parameters: dict[str, Any]
    ) -> tuple[Any, ...] | None:
        try:
            cursor = await connection.execute(statement, parameters, prepare=True)
            row = await cursor.fetchone()
        except BaseException:
            await connection.close()
            raise
        self._idle.append(connection)
        return row

    async def close(self) -> None:
        """Give the connections that are not in use back to the server."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()


class _Connection(psycopg.AsyncConnection[Any]):
    """Gives up a server that does not answer at all; the driver would go on to wait for it, or for its cancellation."""

    is_silent = False

    async def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:  # noqa: ASYNC109 - the driver's own
        try:
            return await super().wait(gen, interval, timeout or ANSWER)
        except psycopg.OperationalError:
            self.is_silent = self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE
            self.pgconn.finish()
            raise
