"""LitServe with one worker and no batching."""

from __future__ import annotations

import os
from typing import Any

import litserve
from rendering import Renderer


class Api(litserve.LitAPI):
    """The three steps that LitServe asks for."""

    def setup(self, device: str) -> None:
        """Load the model."""
        assert device
        self.renderer = Renderer()

    def decode_request(self, request: dict[str, int]) -> dict[str, int]:
        """The body as it came."""
        return request

    def predict(self, asked: dict[str, int]) -> str:
        """One picture."""
        return self.renderer.draw(asked["seed"], asked["side"], asked["steps"])

    def encode_response(self, image: str) -> dict[str, Any]:
        """As JSON."""
        return {"image": image}


if __name__ == "__main__":
    litserve.LitServer(Api(), accelerator="cpu", workers_per_device=1, timeout=600).run(
        host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", generate_client_file=False
    )
