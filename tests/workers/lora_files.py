"""LoRA files for the small models, made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


def make_lora(path: Path, transformer: Any, *, seed: int = 0, wrong: int = 0, keys: str = "") -> Path:
    """Two ranks on the attention of the first block; ``wrong`` columns too many, ``keys`` before each name's end."""
    stream = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    for name, module in transformer.named_modules():
        if isinstance(module, torch.nn.Linear) and name.startswith("transformer_blocks.0.attn.to_"):
            low, high = torch.Size((2, module.in_features + wrong)), torch.Size((module.out_features, 2))
            weights[f"transformer.{keys}{name}.lora_A.weight"] = 0.3 * torch.randn(low, generator=stream)
            weights[f"transformer.{keys}{name}.lora_B.weight"] = 0.3 * torch.randn(high, generator=stream)
    save_file(weights, path)
    return path
