"""``python -m workers local`` starts a GPU worker, ``remote`` one for remote providers; ``webhooks``, ``scheduler``.

A worker is ``celery -A workers worker`` with the options that suit a process which holds a model: the threads pool
(solo is deaf while it renders, prefork forks around CUDA), no prefetch, and the queues of the configured models.
"""

from __future__ import annotations

import sys
from typing import Final

from fluxfarm.catalog import find_model
from fluxfarm.settings import Settings
from storage.queue import REMOTE_QUEUE, WEBHOOK_QUEUE, local_queue
from workers import scheduler
from workers.celery import app
from workers.webhooks import SLOTS

KINDS: Final = ("local", "remote", "webhooks", "scheduler")


def worker_arguments(settings: Settings) -> list[str]:
    """What stands behind ``celery -A workers`` for a worker that renders."""
    queues = ",".join(local_queue(find_model(source.slug).slug) for source in settings.models)
    return _arguments(settings, queues, settings.slots)


def sender_arguments(settings: Settings) -> list[str]:
    """The same for a sender of webhooks."""
    return [*_arguments(settings, WEBHOOK_QUEUE, SLOTS), "--hostname=webhooks@%h"]


def remote_arguments(settings: Settings) -> list[str]:
    """The same for a worker that waits for remote providers: many slots, no device."""
    return [*_arguments(settings, REMOTE_QUEUE, settings.remote_slots), "--hostname=remote@%h"]


def _arguments(settings: Settings, queues: str, slots: int) -> list[str]:
    return [
        "worker",
        "--pool=threads",
        f"--concurrency={slots}",
        "--without-mingle",
        "--without-gossip",
        "--disable-prefetch",
        f"--queues={queues}",
        f"--loglevel={settings.log_level}",
    ]


def main(arguments: list[str]) -> int:
    """Start the process that the one argument names."""
    if len(arguments) != 1 or arguments[0] not in KINDS:
        sys.stderr.write(f"usage: python -m workers {'|'.join(KINDS)}\n")
        return 2
    if arguments[0] == "scheduler":
        return scheduler.main()
    make = {"local": worker_arguments, "remote": remote_arguments, "webhooks": sender_arguments}[arguments[0]]
    app.worker_main(make(Settings()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
