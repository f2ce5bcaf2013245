"""The one Celery task; it is as thin as a ticket."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from storage.queue import TASK
from workers.celery import app


@app.task(name=TASK, bind=True, ignore_result=True)  # type: ignore[untyped-decorator]
def render(task: Any, uuid: str) -> str:
    """Render the job of this uuid; the word that comes back is all that Flower shows."""
    word: str = task.app.render_worker.handle(UUID(uuid))
    return word
