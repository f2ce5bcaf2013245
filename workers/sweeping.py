"""Finds what the dead left behind: expired leases, lost tickets, paid calls, workers, keys."""

from __future__ import annotations

from typing import Final

import structlog

from fluxfarm.airecord import Problem
from fluxfarm.errors import FluxfarmError, Poison, WorkerLost
from fluxfarm.settings import Settings
from storage.database import Database
from storage.dispatcher import Dispatcher
from storage.repository import attempts, calls, deliveries, idempotency, workers
from workers import metrics
from workers.retention import Retention

LOST: Final = Problem(
    code=WorkerLost.code, message="The worker stopped renewing its lease; the job starts again.", retryable=True
)
POISON: Final = Problem(
    code=Poison.code,
    message="The job's worker died each time it was started; it is not started again.",
    retryable=False,
)
OVERDUE: Final = Problem(code="deadline", message="The job could not start before its deadline.", retryable=True)
EVENT_LOG: Final = 86_400.0  #: seconds; a provider's webhook is refused after five minutes anyway
DELIVERY_LOG: Final = 30 * 86_400.0  #: seconds that what became of a webhook can be read

log = structlog.get_logger()


class Sweeper:
    """Rounds that the scheduler makes; each is safe beside other schedulers."""

    def __init__(self, settings: Settings, database: Database, dispatcher: Dispatcher) -> None:
        """All parts are shared with the scheduler."""
        self._settings = settings
        self._database = database
        self._dispatcher = dispatcher
        self._retention = Retention(settings, database)

    def expire_leases(self) -> int:
        """Take the jobs of dead workers back, by the database's clock."""
        with self._database.transaction() as session:
            taken = attempts.expire(session, max_attempts=self._settings.max_attempts, poison=POISON, lost=LOST)
        metrics.EXPIRED.inc(len(taken))
        if taken:
            log.warning("leases_expired", jobs=[str(uuid) for uuid in taken])
        return len(taken)

    def resend_tickets(self) -> int:
        """Send tickets again that the broker lost."""
        resent = self._dispatcher.resend_lost()
        metrics.RESENT.inc(resent)
        return resent

    def close_calls(self) -> int:
        """Close paid calls that nobody follows any more: their jobs were stopped or erased, and their worker died."""
        with self._database.transaction() as session:
            calls.forget_events(session, older_than=EVENT_LOG)
            return calls.left_behind(session, older_than=4 * self._settings.lease)

    def forget_workers(self) -> int:
        """Drop workers that have been silent for an hour."""
        with self._database.transaction() as session:
            return workers.forget_dead(session)

    def forget_keys(self) -> int:
        """Drop idempotency keys that are over their time."""
        with self._database.transaction() as session:
            return idempotency.forget(session)

    def forget_deliveries(self) -> int:
        """Drop webhooks from the log that ended a month ago."""
        with self._database.transaction() as session:
            return deliveries.forget(session, older_than=DELIVERY_LOG)

    def sweep(self) -> None:
        """Every round once; one that fails does not keep the others from their work."""
        rounds = (
            self.expire_leases,
            self.resend_tickets,
            self.close_calls,
            self.forget_workers,
            self.forget_keys,
            self.forget_deliveries,
            self._retention.erase_due,
        )
        for round_ in rounds:
            try:
                round_()
            except FluxfarmError as error:
                log.warning("sweep_failed", round=round_.__name__, code=error.code)
