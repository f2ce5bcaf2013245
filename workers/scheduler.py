"""The scheduler process: a round of tickets every second and a sweep every few; any number of them may run."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Final

import structlog

from fluxfarm.errors import FluxfarmError
from fluxfarm.logs import configure_logging
from fluxfarm.remotes import Remotes
from fluxfarm.settings import Settings
from storage.database import Database
from storage.dispatcher import Dispatcher
from storage.notifier import Notifier
from storage.objects import make_store
from storage.queue import Queue
from workers import alive, metrics
from workers.cleaning import Cleaner
from workers.sweeping import OVERDUE, Sweeper

ROUND: Final = 1.0  #: seconds between two dispatch rounds
POOL: Final = 3  #: connections
LAST_CLEANING: Final = 2.0  #: seconds that a stop waits for objects that are being deleted

log = structlog.get_logger()


def run(settings: Settings, ended: threading.Event) -> None:
    """Dispatch and sweep until ``ended`` is set; objects are deleted in a thread beside, as the store may be silent.

    Raises:
        RuntimeError: that thread died.
    """
    database = Database.from_settings(settings, pool_size=POOL)
    queue = Queue(settings)
    dispatcher = Dispatcher(database, queue, window=settings.window)
    notifier = Notifier(database, queue)
    sweeper = Sweeper(settings, database, dispatcher)
    cleaner = Cleaner(settings, database, make_store(settings))
    cleaning = threading.Thread(target=cleaner.run, args=(ended,), name="cleaner", daemon=True)
    cleaning.start()
    remotes = Remotes.from_settings(settings)
    swept_at = -settings.sweep_interval
    while not ended.wait(ROUND):
        if not cleaning.is_alive():
            raise RuntimeError("The cleaner died, for the reason above.")
        try:
            with metrics.round_of_the_scheduler():
                dispatcher.ripen(OVERDUE)
                if remotes.enabled:
                    dispatcher.move_stranded()
                if time.monotonic() - swept_at >= settings.sweep_interval:
                    sweeper.sweep()
                    swept_at = time.monotonic()
                dispatcher.dispatch_all()
                notifier.send_due()
            alive.touch(settings.alive_file)
        except FluxfarmError as error:
            log.warning("round_failed", code=error.code)
    cleaning.join(LAST_CLEANING)
    queue.close()
    database.close()


def main() -> int:
    """Run until SIGTERM or Ctrl-C."""
    settings = Settings()
    configure_logging(settings)
    ended = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    metrics.serve(settings)
    log.info("scheduler_started")
    run(settings, ended)
    return 0
