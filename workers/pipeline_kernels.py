"""How the arithmetic of a pipeline is done, as the settings ask: precision, compilation, attention, memory layout.

Everything is set once, when a model is loaded and before it is warmed up, and told in the record of each attempt.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from fluxfarm.errors import ModelUnavailable
from fluxfarm.settings import ChannelsLast, Compile, Quantization, Settings
from workers.pipeline_failures import one_line

FP8_CAPABILITY: Final = (8, 9)  #: Ada and Hopper are the first with FP8 matrix units
NATIVE: Final = "native"  #: torch's scaled_dot_product_attention, which picks a kernel itself
#: tried where ``auto`` is asked on CUDA; none of them downloads anything
CANDIDATES: Final = (NATIVE, "_native_cudnn", "_flash_3", "flash")
MARGIN: Final = 0.97  #: another backend must take less than this share of native's time: rounding differs between them
NEAR: Final = 0.02  #: largest difference from native in what the attention of normal random numbers gives
ROUNDS: Final = 5
COMPILER: Final = "inductor"
TOKENS: Final = 4608  #: of a picture of 1 MP and its prompt

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Kernels:
    """What is asked for; the defaults are exact and run anywhere."""

    quantization: Quantization = "none"
    compile: Compile = "none"
    attention: str = NATIVE  #: a name of diffusers', or ``auto``
    channels_last: ChannelsLast = "auto"

    @classmethod
    def from_settings(cls, settings: Settings) -> Kernels:
        """As the operator set it."""
        return cls(settings.quantization, settings.compile, settings.attention, settings.channels_last)


def prepare_allocator() -> None:
    """Let CUDA's allocator grow its blocks instead of splitting memory up; it is read when torch first uses a GPU."""
    if not os.environ.keys() & {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}:
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"


def tune(pipe: Any, kernels: Kernels, device: str) -> dict[str, str]:
    """Apply the settings to a loaded pipeline; what is in use comes back, for the record.

    Raises:
        ModelUnavailable: something was asked for that this machine has not; says what to do.
    """
    transformer = pipe.transformer
    channels_last = kernels.channels_last == "on" or (kernels.channels_last == "auto" and device.startswith("cuda"))
    if channels_last:
        _lay_out(pipe.vae)
    if kernels.quantization == "fp8":
        check_fp8(device)
        quantise(transformer)
    attention = kernels.attention
    if attention == "auto":
        attention = fastest_attention(transformer, CANDIDATES if device.startswith("cuda") else (NATIVE,))
    set_attention(transformer, attention)
    if kernels.compile == "regional":
        transformer.compile_repeated_blocks(fullgraph=True, backend=COMPILER)
    return {
        "quantization": kernels.quantization,
        "compile": kernels.compile,
        "attention": attention,
        "vaeLayout": "channels_last" if channels_last else "contiguous",
    }


def _lay_out(vae: Any) -> None:
    import torch

    vae.to(memory_format=torch.channels_last)


def check_fp8(device: str) -> None:
    """Whether FP8 can be had.

    Raises:
        ModelUnavailable: not on this device, or not with what is installed.
    """
    import torch

    if not device.startswith("cuda"):
        raise ModelUnavailable(
            f"FLUXFARM_QUANTIZATION=fp8 needs an NVIDIA GPU, and this worker draws on {device}: set it to none."
        )
    capability = torch.cuda.get_device_capability(device)
    if capability < FP8_CAPABILITY:
        raise ModelUnavailable(
            f"FLUXFARM_QUANTIZATION=fp8 needs compute capability 8.9 (Ada, Hopper or later), and {device} has "
            f"{capability[0]}.{capability[1]}: set it to none."
        )


def quantise(transformer: Any) -> None:
    """FP8 weights and activations, scaled by row as they come, in the linear layers of the blocks.

    Embeddings, modulation and the output layer stay as they are: they are a thousandth of the work.

    Raises:
        ModelUnavailable: torchao is not installed.
    """
    import torch

    try:
        from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_
    except ImportError:
        raise ModelUnavailable(
            "FLUXFARM_QUANTIZATION=fp8 needs torchao: pip install 'fluxfarm[gpu]', or set it to none."
        ) from None

    def inside_a_block(module: Any, name: str) -> bool:
        return isinstance(module, torch.nn.Linear) and "transformer_blocks." in name

    quantize_(transformer, Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()), inside_a_block)


def set_attention(transformer: Any, backend: str) -> None:
    """Have this transformer use the backend, and no other model of the process, which diffusers would change too.

    Raises:
        ModelUnavailable: there is no such backend, or it lacks a package.
    """
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry as Registry

    before, _ = Registry.get_active_backend()
    try:
        transformer.set_attention_backend(backend)
    except (ValueError, RuntimeError, ImportError) as error:
        reason = one_line(str(error))
        raise ModelUnavailable(f"FLUXFARM_ATTENTION is {backend!r}, which cannot be used: {reason}.") from None
    finally:
        Registry.set_active_backend(before)


def fastest_attention(transformer: Any, candidates: Iterable[str], tokens: int = TOKENS) -> str:
    """The backend that takes the least time on this device for random tokens of the model's own shape.

    One that is missing, raises or gives something else than ``native`` is passed over, and the log says why.
    """
    others = [one for one in candidates if one != NATIVE]
    if not others:
        return NATIVE
    seconds, expected = _time_attention(transformer, NATIVE, tokens)
    times = {NATIVE: seconds}
    for backend in others:
        try:
            seconds, found = _time_attention(transformer, backend, tokens)
            apart = float((found - expected).abs().max())
        except Exception as error:  # noqa: BLE001 - each of a dozen packages has its own
            log.info("attention_passed_over", backend=backend, reason=one_line(str(error)) or type(error).__name__)
            continue
        if not apart <= NEAR:  # also when it is not a number
            log.warning("attention_passed_over", backend=backend, reason=f"{apart:.3g} from native")
            continue
        times[backend] = seconds
    best = min(times, key=lambda backend: times[backend])
    chosen = best if times[best] < MARGIN * times[NATIVE] else NATIVE
    log.info("attention_chosen", backend=chosen, seconds={name: round(one, 6) for name, one in times.items()})
    return chosen


def _time_attention(transformer: Any, backend: str, tokens: int) -> tuple[float, Any]:
    """Seconds of one call, the best of some, and what it gave."""
    import torch
    from diffusers.models.attention_dispatch import (
        AttentionBackendName,
        _check_attention_backend_requirements,
        dispatch_attention_fn,
    )

    name = AttentionBackendName(backend)
    _check_attention_backend_requirements(name)
    config = transformer.config
    shape = (1, tokens, config.num_attention_heads, config.attention_head_dim)
    stream = torch.Generator("cpu").manual_seed(0)
    query, key, value = (
        torch.randn(shape, generator=stream).to(transformer.device, transformer.dtype) for _ in range(3)
    )
    best = float("inf")
    with torch.no_grad():
        for _ in range(ROUNDS):
            _wait(transformer.device)
            started = time.perf_counter()
            found = dispatch_attention_fn(query, key, value, backend=name)
            _wait(transformer.device)
            best = min(best, time.perf_counter() - started)
    return best, found.float()


def _wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
