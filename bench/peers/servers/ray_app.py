"""Ray Serve with one replica that renders one request at a time."""

from __future__ import annotations

import os
import time

import ray
from ray import serve
from rendering import Renderer
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=1, max_queued_requests=-1)
class Model:
    """The replica."""

    def __init__(self) -> None:
        self.renderer = Renderer()

    async def __call__(self, request: Request) -> dict[str, str]:
        """One picture."""
        asked = await request.json()
        return {"image": self.renderer.draw(asked["seed"], asked["side"], asked["steps"])}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200_000_000)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Model.bind(), route_prefix="/")
    while True:
        time.sleep(3600)
