"""cog's predictor, served without its container."""

from __future__ import annotations

from cog import BasePredictor, Input
from rendering import Renderer


class Predictor(BasePredictor):
    """The predictor."""

    def setup(self) -> None:
        """Load the model."""
        self.renderer = Renderer()

    def predict(
        self,
        seed: int = Input(description="seed"),
        side: int = Input(description="px"),
        steps: int = Input(description="n"),
    ) -> str:
        """One picture."""
        return self.renderer.draw(seed, side, steps)
