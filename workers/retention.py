"""Erases what is kept no longer, by each tenant's own times and the farm's for all others; once a minute."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Final

import structlog

from fluxfarm.settings import Settings
from storage.database import Database
from storage.repository import retention
from storage.repository.retention import Kind
from workers import metrics

PACE: Final = 60.0  #: seconds between two rounds
TENANTS: Final = 100  #: that one round looks after; the others are due in the next one
BATCH: Final = 500  #: jobs in one transaction
WORK: Final = 0.5  #: seconds for one kind in one round: the same thread looks after leases and tickets

log = structlog.get_logger()


class Retention:
    """Rounds that the scheduler makes; each is safe beside other schedulers."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """The database is shared with the sweeper."""
        self._database = database
        self._next_at = 0.0
        self._usual: dict[Kind, int] = {
            "prompt": settings.prompt_days,
            "references": settings.reference_hours,
            "results": settings.result_days,
            "record": settings.record_days,
        }

    def erase_due(self) -> None:
        """Erase what is due, if the last round was a minute ago, or had not time enough for all of it."""
        if time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + PACE
            if not self.erase_now(WORK):
                self._next_at = 0.0

    def erase_now(self, seconds: float = math.inf) -> bool:
        """Erase what is due: of jobs that are over, and what lies beside them.

        After so many seconds with the jobs of one kind the rest of them waits, and the answer is False.
        """
        unfinished = [kind for kind in self._usual if not self._of_jobs(kind, seconds)]
        with self._database.transaction() as session:
            self._count("prompt", retention.drop_texts(session, self._usual["prompt"]))
        with self._database.transaction() as session:
            self._count("references", retention.drop_uploads(session, self._usual["references"], limit=BATCH))
        with self._database.transaction() as session:
            self._count("record", retention.drop_empty(session, self._usual["record"]))
        return not unfinished

    def _of_jobs(self, kind: Kind, seconds: float) -> bool:
        """Batch by batch, the tenants in turn; False: there was no time for all."""
        end, usual, looked_at = time.monotonic() + seconds, self._usual[kind], 0
        with self._database.transaction() as session:
            tenants = deque(retention.due(session, kind, usual, limit=TENANTS))
        while tenants:
            with self._database.transaction() as session:
                taken = retention.erase(session, kind, tenants[0], usual, limit=BATCH)
            looked_at += taken
            if taken < BATCH:
                tenants.popleft()
            else:
                tenants.rotate(-1)
            if time.monotonic() >= end:
                break
        self._count(kind, looked_at)
        return not tenants

    def _count(self, kind: Kind, count: int) -> None:
        if count:
            metrics.ERASED.labels(kind).inc(count)
            log.info("retention", kind=kind, count=count)
