"""What ``bench.gpu`` measures: the FLUX.2 models in their true shapes, a tiny one, and the settings of a case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

RESULT: Final = "RESULT "  #: before the JSON that the process of a case prints last


@dataclass(frozen=True)
class Shape:
    """A model: what its parts are built with, and how it is called."""

    pipeline: str
    transformer: dict[str, Any]
    encoder: tuple[str, dict[str, Any]]
    steps: int
    guidance: float
    vae: dict[str, Any]


_QWEN = {"vocab_size": 151_936, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8}
_KLEIN = {"guidance_embeds": False, "attention_head_dim": 128}
SHAPES = {
    "dev": Shape(
        "Flux2Pipeline",
        {},  # diffusers' defaults are those of FLUX.2 [dev]
        (
            "Mistral",
            {
                "vocab_size": 131_072,
                "hidden_size": 5120,
                "intermediate_size": 32_768,
                "num_hidden_layers": 40,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
            },
        ),
        28,
        4.0,
        {},
    ),
    "klein-4b": Shape(
        "Flux2KleinPipeline",
        _KLEIN | {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680},
        ("Qwen3", _QWEN | {"hidden_size": 2560, "intermediate_size": 9728, "head_dim": 128}),
        4,
        1.0,
        {},
    ),
    "klein-9b": Shape(
        "Flux2KleinPipeline",
        _KLEIN | {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12_288},
        ("Qwen3", _QWEN | {"hidden_size": 4096, "intermediate_size": 12_288, "head_dim": 128}),
        4,
        1.0,
        {},
    ),
    "tiny": Shape(
        "Flux2Pipeline",
        {
            "num_layers": 1,
            "num_single_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 32,
            "axes_dims_rope": (8, 8, 8, 8),
            "joint_attention_dim": 96,
            "timestep_guidance_channels": 32,
        },
        (
            "Mistral",
            {
                "vocab_size": 64,
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "head_dim": 16,
            },
        ),
        8,
        4.0,
        {
            "block_out_channels": (8, 8, 16, 16),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "mid_block_add_attention": False,
        },
    ),
}


@dataclass(frozen=True)
class Case:
    """One line of the table; ``part`` is image, encoder or peak."""

    model: str
    device: str
    part: str = "image"
    precision: str = "bf16"
    compile: str = "none"
    attention: str = "native"
    cache: str = "none"
    batch: int = 1
    size: int = 1024
    steps: int = 28
    rounds: int = 2
    seconds: float = 600.0
