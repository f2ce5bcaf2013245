"""The same renderer for every server: diffusers' own pipeline, one thread of torch, one picture at a time.

It stands alone, as each server runs in a virtual environment that knows nothing of the farm.
"""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path


class Renderer:
    """The model of ``BENCH_MODEL``; every seed that was drawn is noted in ``BENCH_LOG``."""

    def __init__(self) -> None:
        import torch  # noqa: PLC0415 - the API of the Celery farm imports this module and renders nothing
        from diffusers import Flux2KleinPipeline  # noqa: PLC0415

        torch.set_num_threads(1)
        self._torch = torch
        self._pipe = Flux2KleinPipeline.from_pretrained(os.environ["BENCH_MODEL"], dtype=torch.float32)
        self._pipe.set_progress_bar_config(disable=True)
        self._log = Path(os.environ["BENCH_LOG"])

    def draw(self, seed: int, side: int, steps: int) -> str:
        """One WebP as base64."""
        picture = self._pipe(
            prompt="a lighthouse at dusk",
            width=side,
            height=side,
            num_inference_steps=steps,
            guidance_scale=3.0,
            max_sequence_length=64,
            generator=self._torch.Generator("cpu").manual_seed(seed),
        ).images[0]
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=90)
        with self._log.open("a", encoding="ascii") as log:
            log.write(f"{seed}\n")
        return base64.b64encode(buffer.getvalue()).decode()
