"""A longer prompt out of a short one, by the text encoder of FLUX.2 [dev], which is a whole language model.

diffusers samples it with torch's global generator, which a ``generator`` does not reach: it is seeded here instead, and
put back as it was.
"""

from __future__ import annotations

from typing import Any, Final

from PIL import Image

from workers.pipeline_trimming import is_trimmed

TEMPERATURE: Final = 0.15  #: what Black Forest Labs advise


def can_upsample(pipe: Any) -> bool:
    """Whether the pipeline has the call, the processor and the head for it; klein and the small models have not."""
    able = hasattr(pipe, "upsample_prompt") and hasattr(pipe.tokenizer, "tokenizer")
    return able and not is_trimmed(pipe.text_encoder)


def upsample(pipe: Any, prompt: str, seed: int, references: tuple[Image.Image, ...]) -> str:
    """What the language model makes of the prompt; the same seed gives the same text on the same device."""
    import torch

    device = torch.device(pipe.text_encoder.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(seed)
        images = [list(references)] if references else None
        (text,) = pipe.upsample_prompt([prompt], images=images, temperature=TEMPERATURE)
    return str(text)
