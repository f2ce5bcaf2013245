"""FastAPI, a lock and a thread: what a first afternoon gives."""

from __future__ import annotations

import os
from threading import Lock

import uvicorn
from fastapi import FastAPI
from rendering import Renderer

renderer, turn, app = Renderer(), Lock(), FastAPI()


@app.post("/render")
def render(seed: int, side: int, steps: int) -> dict[str, str]:
    """One picture; whoever comes meanwhile waits at the lock."""
    with turn:
        return {"image": renderer.draw(seed, side, steps)}


@app.get("/healthz")
def health() -> dict[str, str]:
    """Ready as soon as it answers: the model is loaded before."""
    return {}


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning")
