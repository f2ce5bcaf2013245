"""The Celery application of the workers and Flower, and what happens when a worker process starts and stops.

A process takes its tickets either from the queues of models or from the remote one, and then holds a
``RenderWorker``, or from the queue of webhooks, and then holds a ``WebhookSender`` and never a model.
"""

from __future__ import annotations

from typing import Any

import structlog
from celery.signals import setup_logging, worker_init, worker_ready, worker_shutdown, worker_shutting_down

from fluxfarm.logs import configure_logging
from fluxfarm.settings import Settings
from storage.queue import WEBHOOK_QUEUE, make_app
from workers import metrics
from workers.webhooks import WebhookSender
from workers.worker import RenderWorker

app = make_app(Settings, include=("workers.tasks",))
log = structlog.get_logger()


def _log(**_: Any) -> None:
    configure_logging(Settings())


def _start(sender: Any, **_: Any) -> None:
    try:
        queues = tuple(sender.app.amqp.queues.consume_from)
        slots = sender.concurrency or 1
        if queues == (WEBHOOK_QUEUE,):
            sender.app.process = sender.app.webhook_sender = WebhookSender(Settings(), slots=slots)
        else:
            sender.app.process = sender.app.render_worker = RenderWorker(Settings(), queues, slots=slots)
        metrics.serve(sender.app.process.settings)
        sender.app.process.start()
    except Exception as error:
        # Celery would log it and go on: a process that takes tickets, claims jobs and keeps no lease.
        log.exception("worker_not_started")
        raise SystemExit(1) from error


def _ready(sender: Any, **_: Any) -> None:
    sender.app.process.warm_up()


def _retire(**_: Any) -> None:
    if (worker := getattr(app, "render_worker", None)) is not None:
        worker.retire()


def _stop(sender: Any, **_: Any) -> None:
    sender.app.process.stop()


setup_logging.connect(_log, weak=False)
worker_init.connect(_start, weak=False)
worker_ready.connect(_ready, weak=False)
worker_shutting_down.connect(_retire, weak=False)
worker_shutdown.connect(_stop, weak=False)
