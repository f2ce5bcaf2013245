"""What callers ask most, how one job is, on the event loop: no thread, no session, no object that is tracked.

By way of a thread and the ORM the same look costs six times the processor time (docs/decisions/0018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

from pydantic import SecretStr

from storage import keys
from storage.gathering import Gathering
from storage.lines import Lines, Statement
from storage.records import Job
from storage.repository.jobs import OWNED, READ_AS, no_job
from storage.repository.reading import Rows
from storage.repository.tenants import Caller, known

_READ_AS: Final = Statement(READ_AS)
_READ_AS_ROWS: Final = Rows(READ_AS)
_OWNED: Final = Statement(OWNED)
_OWNED_ROWS: Final = Rows(OWNED)


class Polls:
    """The looks of one process; those that come with one key while another one is answered share a statement."""

    def __init__(self, url: SecretStr) -> None:
        """``url`` is the database's."""
        self._lines = Lines(url)
        self._looks = Gathering(self._look)

    async def read_as(self, secret: str, uuid: UUID, check: Callable[[Caller], object]) -> tuple[Job, Caller]:
        """A job of the tenant whose key passes ``check``, and whose key it is.

        Raises:
            Unauthorized: an unknown, expired or revoked key.
            NotFound: no such job, or somebody else's.
            DatabaseUnavailable: the server cannot be reached, went away or is silent, or all connections are in use.
        """
        caller, job = await self._looks.ask(keys.digest(secret), uuid)
        key = known(caller)
        check(key)
        if job is None:
            raise no_job(uuid)
        return job, key

    async def _look(self, digest: bytes, uuids: Sequence[UUID]) -> list[tuple[tuple[object, ...] | None, Job | None]]:
        """Of each uuid the columns of the key, which are the same for all, and the job."""
        rows = await self._lines.ask(_READ_AS, {"digest": digest, "uuids": list(set(uuids))})
        caller = _READ_AS_ROWS.rest(rows[0]) if rows else None
        found = {row[0]: _READ_AS_ROWS.job(row) for row in rows if row[0] is not None}
        return [(caller, found.get(uuid)) for uuid in uuids]

    async def read(self, tenant_id: UUID, uuid: UUID) -> Job:
        """The tenant's job: for those who wait for it.

        Raises:
            NotFound, DatabaseUnavailable: as above.
        """
        rows = await self._lines.ask(_OWNED, {"tenant_id": tenant_id, "uuid": uuid})
        if not rows:
            raise no_job(uuid)
        return _OWNED_ROWS.job(rows[0])

    async def close(self) -> None:
        """Give the connections that are not in use back to the server."""
        await self._lines.close()
