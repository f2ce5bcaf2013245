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
from workers.sweeping import OVERDUE, Sweeper

ROUND: Final = 1.0  #: seconds between two dispatch rounds
POOL: Final = 2  #: connections

log = structlog.get_logger()


def run(settings: Settings, ended: threading.Event) -> None:
    """Dispatch and sweep until ``ended`` is set."""
    database = Database.from_settings(settings, pool_size=POOL)
    queue = Queue(settings)
    dispatcher = Dispatcher(database, queue, window=settings.window)
    notifier = Notifier(database, queue)
    sweeper = Sweeper(settings, database, dispatcher, make_store(settings))
    remotes = Remotes.from_settings(settings)
    swept_at = -settings.sweep_interval
    while not ended.wait(ROUND):
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
