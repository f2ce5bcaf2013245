"""BentoML with one worker."""

from __future__ import annotations

import bentoml
from rendering import Renderer


@bentoml.service(workers=1, threads=1, traffic={"timeout": 600})
class Bento:
    """The service."""

    def __init__(self) -> None:
        self.renderer = Renderer()

    @bentoml.api
    def render(self, seed: int, side: int, steps: int) -> dict[str, str]:
        """One picture."""
        return {"image": self.renderer.draw(seed, side, steps)}
