"""Moves a small window of queued jobs from the record to the broker; any number of dispatchers may run."""

from __future__ import annotations

from typing import Final

import structlog

from fluxfarm.airecord import Problem
from fluxfarm.campaigns.record import CAMPAIGN_CANCELED
from storage.database import Database
from storage.queue import Queue
from storage.repository import campaigns, dispatch, routes
from storage.repository.dispatch import Window

TICKET_PATIENCE: Final = 10.0  #: seconds after which an unclaimed ticket may be a lost message

log = structlog.get_logger()


class Dispatcher:
    """Called after a job was accepted, after one was finished, and once a second by the scheduler."""

    def __init__(self, database: Database, queue: Queue, *, window: float) -> None:
        """``window`` is in multiples of the live slots of a queue."""
        self._database = database
        self._queue = queue
        self._window = window
        self._stranded: set[str] = set()

    def has_room(self, window: Window) -> bool:
        """Whether a dispatch would send something."""
        return window.room(self._window) > 0

    def dispatch(self, queue: str, *, least: float = 0.0) -> int:
        """Send tickets for the next jobs of one queue; gives how many were sent.

        Below a share ``least`` of the window it is not worth the while: the tickets that are out last for longer.
        """
        with self._database.transaction() as session:
            room = dispatch.room(session, queue, self._window, least=least)
            chosen = dispatch.pick(session, queue, room) if room else []
        unsent = [uuid for uuid in chosen if not self._queue.enqueue(queue, uuid)]
        if unsent:
            with self._database.transaction() as session:
                dispatch.release(session, unsent)
        return len(chosen) - len(unsent)

    def dispatch_all(self) -> int:
        """One round over every queue in which something waits."""
        with self._database.transaction() as session:
            waiting = dispatch.queues(session)
        return sum(self.dispatch(queue) for queue in waiting)

    def ripen(self, overdue: Problem) -> None:
        """Wake the retries whose time has come, cancel what can no longer start in time, hold what is paused."""
        with self._database.transaction() as session:
            dispatch.ripen(session)
            dispatch.overdue(session, overdue)
        # Of its own: what is overdue is told last in its transaction, and this waits for locks of other rows.
        with self._database.transaction() as session:
            campaigns.park(session, CAMPAIGN_CANCELED)

    def move_stranded(self) -> int:
        """Send what no local worker will render to the remote ones, where its owner allows it.

        A queue must be without a worker in two rounds: one that only connects again must cost nothing.
        """
        with self._database.transaction() as session:
            found = routes.stranded(session)
            gone, self._stranded = found & self._stranded, found
            return routes.move(session, gone) if gone else 0

    def resend_lost(self) -> int:
        """Send again only the gap between the tickets that are out and the messages that the broker holds."""
        with self._database.transaction() as session:
            out = {queue: dispatch.in_flight(session, queue) for queue in dispatch.dispatched_queues(session)}
        sent = 0
        for queue, tickets in out.items():
            gap = tickets - self._queue.depth(queue)
            if gap <= 0:
                continue
            with self._database.transaction() as session:
                lost = dispatch.stale(session, queue, older_than=TICKET_PATIENCE, gap=gap)
            sent += sum(self._queue.enqueue(queue, uuid) for uuid in lost)
        if sent:
            log.info("tickets_sent_again", count=sent)
        return sent
