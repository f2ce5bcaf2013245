"""Puts the trained parts together as the folder that ships with the farm."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline

SHIPPED: Final = Path(__file__).parent.parent / "workers" / "weights" / "flux-2-klein-small"


def assemble(vae: Any, encoder: Any, tokenizer: Any, transformer: Any) -> Any:
    """A plain ``Flux2KleinPipeline``, undistilled: it needs true guidance."""
    pipe = Flux2KleinPipeline(
        # Without use_dynamic_shifting the pipeline's mu is ignored silently; the other values are diffusers' defaults.
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae.eval(),
        text_encoder=encoder.eval(),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
        is_distilled=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def load(folder: Path) -> Any:
    """The shipped pipeline in float32, as a worker loads it on a CPU."""
    pipe = Flux2KleinPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save(pipe: Any, folder: Path) -> None:
    """Write the pipeline as half-precision safetensors, half the size of what was trained."""
    halved = assemble(_halved(pipe.vae), _halved(pipe.text_encoder), pipe.tokenizer, _halved(pipe.transformer))
    halved.save_pretrained(folder, safe_serialization=True)


def _halved(part: Any) -> Any:
    copy = type(part).from_config(part.config) if hasattr(part, "from_config") else type(part)(part.config)
    copy.load_state_dict(part.state_dict())
    return copy.to(torch.float16)
