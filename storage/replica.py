"""Where lists are read: at a replica, if there is one, so that the primary keeps its time for what must be exact.

A list from a replica may be some moments old; who looks a single job up asks the primary.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

import structlog

from fluxfarm.errors import DatabaseUnavailable
from fluxfarm.settings import Settings
from storage.database import Database, Session

PAUSE: Final = 5.0  #: seconds without another try after the replica did not answer

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

    def read(self, ask: Callable[[Session], Answer]) -> Answer:
        """The answer to a question that changes nothing; it may be asked twice.

        Raises:
            DatabaseUnavailable: neither answers.
        """
        if self._replica is not None and time.monotonic() >= self._away_until:
            try:
                with self._replica.statements() as session:
                    return ask(session)
            except DatabaseUnavailable:
                self._away_until = time.monotonic() + PAUSE
                log.warning("replica_unavailable")
        with self._primary.statements() as session:
            return ask(session)

    def close(self) -> None:
        """Give the replica's connections back; the primary is somebody else's."""
        if self._replica is not None:
            self._replica.close()
