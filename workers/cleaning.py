"""Deletes objects that nothing needs: of attempts that lost, of jobs that were erased, of calls that failed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from fluxfarm.errors import FluxfarmError
from fluxfarm.settings import Settings
from storage.database import Database
from storage.objects import ObjectStore, attempt_prefix, job_prefix
from storage.repository import attempts, retention

SOME: Final = 100  #: paths that are deleted before they are noted as gone
WORK: Final = 1.0  #: seconds after which one kind leaves what is left to the next round

log = structlog.get_logger()


class Cleaner:
    """Rounds beside the scheduler's own, as a store may keep its callers waiting; safe beside other schedulers.

    A zombie may write until its lease is long over, and a call may be about to store what it has read: all wait for
    four leases.
    """

    def __init__(self, settings: Settings, database: Database, store: ObjectStore) -> None:
        """Database and store may be shared."""
        self._database = database
        self._store = store
        self._patience = 4 * settings.lease
        self._interval = settings.sweep_interval

    def run(self, ended: threading.Event) -> None:
        """Clean every few seconds, and at once where there is more, until ``ended`` is set."""
        pause = self._interval
        while not ended.wait(pause):
            pause = 0.0 if self.clean() else self._interval

    def clean(self) -> bool:
        """Every kind once; one that fails does not keep the others from their work. Gives whether there is more."""
        more = False
        for kind in (self.of_attempts, self.of_jobs, self.leftovers):
            try:
                more |= while_full(kind)
            except FluxfarmError as error:
                log.warning("cleaning_failed", kind=kind.__name__, code=error.code)
        return more

    def of_attempts(self) -> int:
        """Those of some attempts that lost; gives of how many."""
        with self._database.transaction() as session:
            losing = attempts.unswept(session, older_than=self._patience, limit=SOME)
        for tenant_id, uuid, number in losing:
            self._store.delete_prefix(attempt_prefix(tenant_id, uuid, number))
            with self._database.transaction() as session:
                attempts.mark_swept(session, uuid, number)
        return len(losing)

    def of_jobs(self) -> int:
        """Those of some jobs that were erased; gives of how many."""
        with self._database.transaction() as session:
            gone = attempts.erased(session, older_than=self._patience, limit=SOME)
        for tenant_id, uuid in gone:
            self._store.delete_prefix(job_prefix(tenant_id, uuid))
        with self._database.transaction() as session:
            attempts.forget_erasures(session, [uuid for _, uuid in gone])
        return len(gone)

    def leftovers(self) -> int:
        """Some that were noted before they were put, and that nothing needs any more; gives how many."""
        with self._database.transaction() as session:
            paths = retention.leftovers(session, older_than=self._patience, limit=SOME)
        for path in paths:
            if path.endswith("/"):
                self._store.delete_prefix(path)
            else:
                self._store.delete(path)
        with self._database.transaction() as session:
            retention.forget_leftovers(session, paths)
        return len(paths)


def while_full(kind: Callable[[], int]) -> bool:
    """Again and again while there is as much as one call deletes, and time for it; gives whether there is more."""
    end = time.monotonic() + WORK
    while kind() >= SOME:
        if time.monotonic() >= end:
            return True
    return False
