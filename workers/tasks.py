"""The Celery tasks; they are as thin as a ticket."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from storage.queue import DELIVER, TASK
from workers.celery import app


@app.task(name=TASK, bind=True, ignore_result=True)  # type: ignore[untyped-decorator]
def render(task: Any, uuid: str) -> str:
    """Render the next job of the queue that the ticket came through; the word that comes back is all Flower shows."""
    queue = task.request.delivery_info["routing_key"]
    word: str = task.app.render_worker.handle(queue, UUID(uuid))
    return word


@app.task(name=DELIVER, ignore_result=True, bind=True)  # type: ignore[untyped-decorator]
def deliver(task: Any, delivery_id: str) -> str:
    """Send one attempt of a webhook."""
    word: str = task.app.webhook_sender.handle(delivery_id)
    return word
