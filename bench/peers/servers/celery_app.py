"""A plain farm: FastAPI, Celery and Redis as their guides have them; POST, poll, GET."""

from __future__ import annotations

import os

from celery import Celery
from celery.signals import worker_process_init
from fastapi import FastAPI
from rendering import Renderer

queue = Celery("plain", broker=os.environ["BENCH_REDIS"], backend=os.environ["BENCH_REDIS"])
app = FastAPI()
held: list[Renderer] = []


@worker_process_init.connect
def load(**_: object) -> None:
    """Load the model once for each process."""
    held.append(Renderer())


@queue.task
def draw(seed: int, side: int, steps: int) -> str:
    """One picture."""
    return held[0].draw(seed, side, steps)


@app.post("/render")
def render(seed: int, side: int, steps: int) -> dict[str, str]:
    """Put a job into the queue."""
    return {"id": draw.delay(seed, side, steps).id}


@app.get("/render/{task}")
def look(task: str) -> dict[str, str | None]:
    """Its picture, when there is one."""
    found = queue.AsyncResult(task)
    return {"state": found.state, "image": found.result if found.state == "SUCCESS" else None}


@app.get("/healthz")
def health() -> dict[str, str]:
    """Ready."""
    return {}
