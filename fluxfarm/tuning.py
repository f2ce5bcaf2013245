"""The settings by which a worker of the farm's own is tuned to its device: batches, caches, models that stay."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from fluxfarm.reporting import Reporting
from fluxfarm.sizes import Size, parse_size


class Tuning(Reporting):
    """A part of ``Settings``."""

    batch_size: int = Field(
        0,
        alias="FLUXFARM_BATCH_SIZE",
        ge=0,
        le=16,
        description=(
            "Most pictures that one call of the pipeline draws, of waiting jobs of one shape; 0: what pays for the "
            "model and the size, 1: one by one, which repeats to the bit."
        ),
    )
    prompt_cache: int = Field(
        1024,
        alias="FLUXFARM_PROMPT_CACHE",
        ge=0,
        description="MiB of host memory for encoded prompts (8 to 16 each on FLUX.2), so that none is encoded twice.",
    )
    encode_ahead: Literal["auto", "on", "off"] = Field(
        "auto",
        alias="FLUXFARM_ENCODE_AHEAD",
        description=(
            "Whether a slot that waits for the device encodes the next prompts beside the drawing in progress: `auto` "
            "does on an NVIDIA GPU, while it has memory free beside the reserve."
        ),
    )
    resident_models: int = Field(
        2,
        alias="FLUXFARM_RESIDENT_MODELS",
        ge=1,
        le=64,
        description="Most models that a worker keeps loaded at once; the least used one makes room.",
    )
    model_memory: int = Field(
        0,
        alias="FLUXFARM_MODEL_MEMORY",
        ge=0,
        description="MiB that weights of loaded models may take together; 0: what a GPU has free, no limit on a CPU.",
    )
    memory_reserve: int = Field(
        8192,
        alias="FLUXFARM_MEMORY_RESERVE",
        ge=0,
        description="MiB of a GPU that stay free of weights, for the work itself.",
    )
    warm_sizes: Annotated[tuple[Size, ...], NoDecode] = Field(
        (),
        alias="FLUXFARM_WARM_SIZES",
        description=(
            "Sizes that a worker draws once with each of its models before it is ready, as `1024x1024,832x1216`: then "
            "no job pays for kernels that are compiled for a shape."
        ),
    )

    @field_validator("warm_sizes", mode="before")
    @classmethod
    def _read_sizes(cls, value: object) -> object:
        return tuple(parse_size(one) for one in value.split(",") if one.strip()) if isinstance(value, str) else value
