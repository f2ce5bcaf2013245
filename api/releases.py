"""Idempotency keys of calls that failed while the database was away: given up as soon as it is back."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import Final

from fluxfarm.errors import DatabaseUnavailable
from storage.database import Database
from storage.repository import idempotency
from storage.repository.idempotency import Taken

PAUSE: Final = 0.5  #: seconds between two tries
MOST: Final = 10_000  #: keys that are remembered; of more, the oldest run out by themselves


class Releases:
    """Without it, whoever repeats such a call would hear for two minutes that it is still worked on."""

    def __init__(self, database: Database) -> None:
        """No thread runs until there is a key to give up."""
        self._database = database
        self._calls: deque[Taken] = deque(maxlen=MOST)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def add(self, call: Taken) -> None:
        """Give the key up later."""
        with self._lock:
            self._calls.append(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="releases", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """What is left runs out by itself."""
        self._ended.set()
        if (thread := self._thread) is not None:
            thread.join(timeout=5)

    def _run(self) -> None:
        while not self._ended.wait(PAUSE):
            with suppress(DatabaseUnavailable):
                self._give_up()
            with self._lock:
                if not self._calls:
                    self._thread = None
                    return

    def _give_up(self) -> None:
        while self._calls:
            call = self._calls[0]
            with self._database.transaction() as session:
                idempotency.release(session, call)
            with suppress(IndexError):
                self._calls.popleft()
