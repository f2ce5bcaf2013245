"""What a picture would look like if it were finished now, out of the denoising steps, for those who asked to see it.

At a step the sample is x = (1 - sigma) * picture + sigma * noise and the transformer gives v = noise - picture, hence
picture = x - sigma * v: the rectified flow that FLUX.2 was trained on. The estimate is shrunk before the VAE decodes
it, so that a preview costs a sixteenth of the decode of 1 megapixel, or less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from PIL import Image

SIDE: Final = 256  #: pixels of a preview's longer side
PIXELS_PER_LATENT: Final = 8

OnPreview = Callable[[int, int, int, Image.Image], None]  #: picture, index of the preview, step, what it shows


def preview_steps(steps: int, count: int) -> tuple[int, ...]:
    """After which of the steps a preview is taken: evenly spread, and never after the last."""
    wanted = {round(steps * (index + 1) / (count + 1)) for index in range(count)}
    return tuple(sorted(step for step in wanted if 0 < step < steps))


class Previewer:
    """Looks over the shoulder of one call of the pipeline."""

    def __init__(self, pipe: Any, *, width: int, height: int) -> None:
        """``width`` and ``height`` are of the drawings, in pixels."""
        self._pipe = pipe
        self._tokens = (height // 16, width // 16)
        self._seen: tuple[Any, Any] | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keeps what the scheduler is given at each step."""
        scheduler = self._pipe.scheduler
        step = scheduler.step

        def watched(model_output: Any, timestep: Any, sample: Any, **more: Any) -> Any:
            self._seen = (model_output, sample)
            return step(model_output, timestep, sample, **more)

        scheduler.step = watched
        try:
            yield
        finally:
            del scheduler.step  # the class's own again
            self._seen = None

    def look(self, step: int, row: int) -> Image.Image:
        """What picture ``row`` of the call would be after step ``step`` (from 1)."""
        import torch

        assert self._seen is not None
        velocity, sample = (one[row : row + 1] for one in self._seen)
        pipe = self._pipe
        estimate = sample.float() - float(pipe.scheduler.sigmas[step - 1]) * velocity.float()
        bn, epsilon = pipe.vae.bn, pipe.vae.config.batch_norm_eps
        latents = estimate.reshape(1, *self._tokens, -1).permute(0, 3, 1, 2)
        deviation = torch.sqrt(bn.running_var.view(1, -1, 1, 1).to(latents) + epsilon)
        latents = pipe._unpatchify_latents(latents * deviation + bn.running_mean.view(1, -1, 1, 1).to(latents))  # noqa: SLF001
        shrink = max(1.0, max(latents.shape[2:]) * PIXELS_PER_LATENT / SIDE)
        if shrink > 1:
            size = [max(1, round(side / shrink)) for side in latents.shape[2:]]
            latents = torch.nn.functional.interpolate(latents, size=size, mode="area")
        with torch.no_grad():
            decoded = pipe.vae.decode(latents.to(pipe.vae.dtype), return_dict=False)[0]
        image: Image.Image = pipe.image_processor.postprocess(decoded, output_type="pil")[0]
        return image
