"""fal's Python client, which reads its hosts when it is imported: the calls of one process, told as JSON."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any

import fal_client

MODEL, PICTURE = os.environ["MODEL"], os.environ["PICTURE"]
ASKED = {"prompt": "a fox", "num_inference_steps": 2, "image_size": {"width": 64, "height": 80}}


def rendered() -> dict[str, Any]:
    """Calls of a farm that renders."""
    said: dict[str, Any] = {}
    updates: list[str] = []
    said["subscribed"] = fal_client.subscribe(
        MODEL, ASKED, with_logs=True, on_queue_update=lambda update: updates.append(type(update).__name__)
    )
    said["last"] = updates[-1]
    handle = fal_client.submit(f"{MODEL}/edit", {**ASKED, "image_urls": [PICTURE]}, priority="low")
    said["submitted"] = handle.get()
    said["status"] = type(fal_client.status(f"{MODEL}/edit", handle.request_id, with_logs=True)).__name__
    said["result"] = fal_client.result(f"{MODEL}/edit", handle.request_id)
    said["run"] = fal_client.run(MODEL, {**ASKED, "sync_mode": True})
    said["async"] = asyncio.run(fal_client.AsyncClient().subscribe(MODEL, ASKED))
    return said


def waiting() -> dict[str, Any]:
    """Calls of a farm whose workers are away."""
    first = fal_client.submit(MODEL, ASKED)
    handle = fal_client.submit(MODEL, ASKED, start_timeout=60)
    status = handle.status()
    said: dict[str, Any] = {"status": type(status).__name__, "position": getattr(status, "position", None)}
    fal_client.cancel(MODEL, first.request_id)
    completed = first.status()
    said["canceled"] = [type(completed).__name__, getattr(completed, "error_type", None)]
    refused: dict[str, Callable[[], Any]] = {
        "late": lambda: fal_client.cancel(MODEL, first.request_id),
        "gone": first.get,
        "elsewhere": lambda: fal_client.status("fal-ai/flux-2", handle.request_id),
        "unknown": lambda: fal_client.submit("fal-ai/flux-1", ASKED),
        "invalid": lambda: fal_client.submit(MODEL, {**ASKED, "num_images": 0}),
    }
    for name, call in refused.items():
        try:
            call()
        except fal_client.FalClientHTTPError as error:
            said[name] = [error.status_code, error.error_type]
    return said


if __name__ == "__main__":
    print(json.dumps({"rendered": rendered, "waiting": waiting}[os.environ["CALLS"]]()))  # noqa: T201
