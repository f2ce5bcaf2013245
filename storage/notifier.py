"""Moves the webhooks that are due from the outbox to the broker; any number of notifiers may run."""

from __future__ import annotations

from typing import Final

import structlog

from fluxfarm.errors import BrokerUnavailable, Unavailable
from storage.database import Database
from storage.queue import WEBHOOK_QUEUE, Queue
from storage.repository import deliveries

WINDOW: Final = 256  #: tickets at the broker; the rest waits in Postgres

log = structlog.get_logger()


class Notifier:
    """Called when a job has ended, when a delivery was tried, and once a second by the scheduler."""

    def __init__(self, database: Database, queue: Queue) -> None:
        """Both are shared with their owner."""
        self._database = database
        self._queue = queue

    def send_due(self, endpoint_id: str | None = None) -> int:
        """Send tickets for the next deliveries, of one endpoint or of all; gives how many were sent.

        Raises:
            DatabaseUnavailable: nothing was changed.
        """
        try:
            room = WINDOW - self._queue.depth(WEBHOOK_QUEUE)
        except BrokerUnavailable:
            return 0
        if room <= 0:
            return 0
        with self._database.transaction() as session:
            chosen = deliveries.issue(session, room, endpoint_id)
        unsent = [one for one in chosen if not self._queue.enqueue_delivery(one)]
        if unsent:
            with self._database.transaction() as session:
                deliveries.return_tickets(session, unsent)
        return len(chosen) - len(unsent)

    def hurry(self, endpoint_id: str | None) -> None:
        """The fast path after a commit, for nobody when there is no endpoint; the scheduler sends what this cannot."""
        if endpoint_id is None:
            return
        try:
            self.send_due(endpoint_id)
        except Unavailable as error:
            log.warning("webhooks_postponed", webhook=endpoint_id, error=error.code)
