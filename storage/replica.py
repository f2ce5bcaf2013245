"""Where lists are read: at a replica, if there is one, so that the primary keeps its time for what must be exact.

A list from a replica may be some moments old; who looks a single job up asks the primary.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

import structlog
from sqlalchemy import text

from fluxfarm.errors import DatabaseUnavailable, NotFound
from fluxfarm.settings import Settings
from storage.database import Database, Session

PAUSE: Final = 5.0  #: seconds without another try after the replica did not answer
LOOK: Final = 1.0  #: seconds between two looks at how far it is behind
#: what is on the disk: on a farm at rest, records after the last commit may stay in memory for minutes
WRITTEN: Final = text("SELECT pg_current_wal_flush_lsn()::text")
REPLAYED: Final = text("SELECT pg_last_wal_replay_lsn() >= CAST(:place AS pg_lsn)")

Answer = TypeVar("Answer")
log = structlog.get_logger()


class Replica:
    """Asks the replica, and the primary while there is none or it is away; safe to share between threads."""

    def __init__(self, settings: Settings, primary: Database) -> None:
        """Connects on the first use."""
        url = settings.replica_url
        self._primary = primary
        self._replica = Database(url, pool_size=settings.api_threads) if url.get_secret_value() else None
        self._away_until = 0.0
        self._limit = settings.replica_lag
        self._looking = threading.Lock()
        self._look_at = 0.0
        self._mark: tuple[float, str] | None = None  #: a moment, and how far the primary had written then
        self._was_near = False
        self._had_all_of = -math.inf  #: the last moment of which the replica is known to have all

    def read(self, ask: Callable[[Session], Answer], *, fresh: bool = False) -> Answer:
        """The answer to a question that changes nothing; it may be asked twice.

        ``fresh`` is for who has just changed something, and must see it: the primary answers.

        Raises:
            DatabaseUnavailable: neither answers.
            NotFound: the primary has not what is asked for, either.
        """
        if self._replica is not None and not fresh and time.monotonic() >= self._away_until:
            try:
                if self._follows(self._replica):
                    with self._replica.statements() as session:
                        return ask(session)
            except NotFound:  # as the row that a list goes on from: it may be too new
                pass
            except DatabaseUnavailable:
                self._away_until = time.monotonic() + PAUSE
                log.warning("replica_unavailable")
        with self._primary.statements() as session:
            return ask(session)

    def _follows(self, replica: Database) -> bool:
        """Whether it is behind by no more than the limit; one thread looks, the others take what it last found."""
        if time.monotonic() >= self._look_at and self._looking.acquire(blocking=False):
            try:
                self._look(replica)
                was, self._was_near = self._was_near, self._is_near()
                if was and not self._was_near:
                    log.warning("replica_behind", seconds=round(time.monotonic() - self._had_all_of))
            finally:
                self._look_at = time.monotonic() + min(LOOK, self._limit / 4)
                self._looking.release()
        return self._is_near()

    def _is_near(self) -> bool:
        return time.monotonic() - self._had_all_of <= self._limit

    def _look(self, replica: Database) -> None:
        """Wait for one mark at a time: the clock of its last transaction says nothing on a farm at rest."""
        if self._mark is None:
            moment = time.monotonic()
            with self._primary.statements() as session:
                self._mark = (moment, str(session.scalar(WRITTEN)))
        moment, place = self._mark
        with replica.statements() as session:
            has_it = session.scalar(REPLAYED, {"place": place})
        if has_it:
            self._had_all_of, self._mark = moment, None

    def close(self) -> None:
        """Give the replica's connections back; the primary is somebody else's."""
        if self._replica is not None:
            self._replica.close()
