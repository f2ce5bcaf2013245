"""The least that a reply can cost here: one route of FastAPI that does nothing, on uvicorn as the farm runs it."""

from __future__ import annotations

from fastapi import FastAPI

app = FastAPI()


@app.get("/bare")
async def bare() -> dict[str, str]:
    """A word."""
    return {"it": "answers"}
