"""The way in of jobs, on the event loop: who calls, and the one statement that stores a job which stands alone.

The statements are the repository's own, sent past threads and the ORM (docs/decisions/0023). Whatever needs more than
one statement goes by way of a thread and a transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg
from anyio import to_thread

from fluxfarm.errors import ExternalIdTaken
from storage import keys
from storage.database import Database
from storage.gathering import Gathering
from storage.lines import Lines, Statement
from storage.repository import idempotency, jobs
from storage.repository.idempotency import First, Taken
from storage.repository.jobs import NewJob, Stored
from storage.repository.tenants import LIVE_KEY, Caller, known

_LIVE_KEY: Final = Statement(LIVE_KEY)
_STORE: Final = Statement(jobs.STORE)
_STORE_ONCE: Final = Statement(idempotency.STORE)


class Entrance:
    """The way in of one process; calls of one key, and jobs of one tenant, share statements when many come at once."""

    def __init__(self, database: Database) -> None:
        """``database`` is for what a thread must look up."""
        self._database = database
        self._lines = Lines(database.url)
        self._callers = Gathering(self._look_up)
        self._jobs = Gathering(self._store)

    async def caller(self, secret: str) -> Caller:
        """Who holds the key, as it is now.

        Raises:
            Unauthorized: unknown, expired or revoked.
            DatabaseUnavailable: nobody knows.
        """
        return known(await self._callers.ask(keys.digest(secret), None))

    async def store(self, new: NewJob, call: Taken | None, *, status_code: int, ttl: float) -> Stored | First:
        """Store a job that stands alone, and take its key if it has one; or what the first call with it came to.

        Raises:
            IdempotencyKeyReused, IdempotencyInFlight: the first call was another one, or is still worked on.
            ExternalIdTaken: another job of the tenant has the job's external id.
            DatabaseUnavailable: the message says whether nothing was changed.
        """
        values = jobs.columns(new)
        if call is None:
            row = await self._jobs.ask(new.tenant_id, values)
            if row is None:
                raise await self._external_id_taken(new)
            return jobs.stored(values, row)
        parameters = {"rows": jobs.arriving([values])} | idempotency.taking(call, call.ttl or ttl, status_code)
        for _ in range(idempotency.TRIES):
            try:
                rows = await self._lines.change(_STORE_ONCE, parameters)
            except psycopg.errors.UniqueViolation as error:
                if error.diag.constraint_name != jobs.EXTERNAL_ID:
                    raise
                raise await self._external_id_taken(new) from None
            if rows:
                return jobs.stored(values, rows[0])
            if (first := await to_thread.run_sync(self._first, call)) is not None:
                return first
        raise idempotency.in_flight()

    async def close(self) -> None:
        """Give the connections that are not in use back to the server."""
        await self._lines.close()

    async def _look_up(self, digest: bytes, asked: Sequence[None]) -> list[tuple[Any, ...] | None]:
        rows = await self._lines.ask(_LIVE_KEY, {"digest": digest})
        return [rows[0] if rows else None] * len(asked)

    async def _store(self, _tenant_id: UUID, asked: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...] | None]:
        """Of each job what the database says of its row; None: its external id was taken."""
        rows = await self._lines.change(_STORE, {"rows": jobs.arriving(asked)})
        made = {row[0]: row for row in rows}
        return [made.get(values["uuid"]) for values in asked]

    def _first(self, call: Taken) -> First | None:
        with self._database.statements() as session:
            return idempotency.look(session, call)

    async def _external_id_taken(self, new: NewJob) -> ExternalIdTaken:
        def look() -> ExternalIdTaken:
            with self._database.statements() as session:
                return jobs.external_id_taken(session, new)

        return await to_thread.run_sync(look)
