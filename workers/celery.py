"""The Celery application of the workers and Flower, and what happens when a worker process starts and stops."""

from __future__ import annotations

from typing import Any

from celery.signals import setup_logging, worker_init, worker_ready, worker_shutdown

from fluxfarm.logs import configure_logging
from fluxfarm.settings import Settings
from storage.queue import make_app
from workers.worker import RenderWorker

app = make_app(Settings, include=("workers.tasks",))


def _log(**_: Any) -> None:
    configure_logging(Settings())


def _start(sender: Any, **_: Any) -> None:
    queues = tuple(sender.app.amqp.queues.consume_from)
    sender.app.render_worker = RenderWorker(Settings(), queues, slots=sender.concurrency or 1)
    sender.app.render_worker.start()


def _ready(sender: Any, **_: Any) -> None:
    sender.app.render_worker.warm_up()


def _stop(sender: Any, **_: Any) -> None:
    sender.app.render_worker.stop()


setup_logging.connect(_log, weak=False)
worker_init.connect(_start, weak=False)
worker_ready.connect(_ready, weak=False)
worker_shutdown.connect(_stop, weak=False)
