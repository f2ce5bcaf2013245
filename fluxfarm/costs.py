"""What a render is expected to cost a GPU, before it has been measured; fair shares start from it."""

from __future__ import annotations

from typing import Final

from fluxfarm.acceleration import skipped_steps
from fluxfarm.request import RenderRequest
from fluxfarm.sizes import MEGAPIXEL

TEXT_TOKENS: Final = 512
PIXELS_PER_TOKEN: Final = 256  #: VAE /8 and patches of 2
REFERENCE_TOKENS: Final = MEGAPIXEL // PIXELS_PER_TOKEN  #: the pipeline shrinks a reference to at most 1 MP
STEP_1MP_TOKENS: Final = TEXT_TOKENS + REFERENCE_TOKENS

#: seconds of one step at 1 MP on an H200: 282.6, 34.8 and 75.5 TFLOP a step at about 700 TFLOP/s
SECONDS_PER_STEP: Final = {
    "black-forest-labs/flux-2-dev": 0.40,
    "black-forest-labs/flux-2-klein-4b": 0.05,
    "black-forest-labs/flux-2-klein-9b": 0.11,
    "black-forest-labs/flux-2-klein-base-4b": 0.10,
    "black-forest-labs/flux-2-klein-base-9b": 0.22,
}
OTHER: Final = 0.30  #: seconds; the small models on two cores


def gpu_seconds(request: RenderRequest) -> float:
    """Expected seconds on the device, linear in tokens and computed steps; each render corrects it by what it took."""
    tokens = TEXT_TOKENS + request.size.rendered.pixels / PIXELS_PER_TOKEN
    tokens += REFERENCE_TOKENS * len(request.references)
    per_step = SECONDS_PER_STEP.get(request.model, OTHER) * tokens / STEP_1MP_TOKENS
    computed = request.steps - len(skipped_steps(request.steps, request.acceleration))
    return round(per_step * computed * request.n, 4)
