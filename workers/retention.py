"""Erases what is kept no longer, by each tenant's own times and the farm's for all others; once a minute."""

from __future__ import annotations

import time
from typing import Final

import structlog

from fluxfarm.settings import Settings
from storage.database import Database
from storage.objects import ObjectStore
from storage.repository import retention
from storage.repository.retention import Kind
from workers import metrics

PACE: Final = 60.0  #: seconds between two rounds
TENANTS: Final = 100  #: that one round looks after; the others are due in the next one
BATCH: Final = 500  #: jobs in one transaction
BATCHES: Final = 20  #: of one tenant and kind in one round

log = structlog.get_logger()


class Retention:
    """Rounds that the scheduler makes; each is safe beside other schedulers."""

    def __init__(self, settings: Settings, database: Database, store: ObjectStore) -> None:
        """Database and store are shared with the sweeper."""
        self._settings = settings
        self._database = database
        self._store = store
        self._next_at = 0.0
        self._usual: dict[Kind, int] = {
            "prompt": settings.prompt_days,
            "references": settings.reference_hours,
            "results": settings.result_days,
            "record": settings.record_days,
        }

    def erase_due(self) -> None:
        """Erase what is due, if the last round was a minute ago."""
        if time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + PACE
            self.erase_now()

    def erase_now(self) -> None:
        """Erase what is due: of jobs that are over, and what lies beside them."""
        for kind in self._usual:
            self._count(kind, self._of_jobs(kind))
        with self._database.transaction() as session:
            self._count("prompt", retention.drop_texts(session, self._usual["prompt"]))
        with self._database.transaction() as session:
            self._count("references", retention.drop_uploads(session, self._usual["references"], limit=BATCH))
        with self._database.transaction() as session:
            self._count("record", retention.drop_empty(session, self._usual["record"]))

    def _of_jobs(self, kind: Kind) -> int:
        usual, looked_at = self._usual[kind], 0
        with self._database.transaction() as session:
            tenants = retention.due(session, kind, usual, limit=TENANTS)
        for tenant_id in tenants:
            for _ in range(BATCHES):
                with self._database.transaction() as session:
                    taken = retention.erase(session, kind, tenant_id, usual, limit=BATCH)
                looked_at += taken
                if taken < BATCH:
                    break
        return looked_at

    def _count(self, kind: Kind, count: int) -> None:
        if count:
            metrics.ERASED.labels(kind).inc(count)
            log.info("retention", kind=kind, count=count)

    def sweep_leftovers(self) -> int:
        """Delete objects that nothing needs any more.

        A call that read a reference before it was forgotten has stored its job by then, so that the job is seen.
        """
        with self._database.transaction() as session:
            paths = retention.leftovers(session, older_than=4 * self._settings.lease)
        for path in paths:
            if path.endswith("/"):
                self._store.delete_prefix(path)
            else:
                self._store.delete(path)
            with self._database.transaction() as session:
                retention.forget_leftover(session, path)
        return len(paths)
