"""One case of ``bench.gpu``, measured in a process of its own; prints its result as JSON."""

from __future__ import annotations

import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final

import diffusers
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from bench.gpu_shapes import RESULT, SHAPES, Case
from bench.gpu_steps import skipped_steps, skipping

FP8_CAPABILITY: Final = (8, 9)
TEXT_TOKENS: Final = 512
WARM_STEPS: Final = 2


class CannotRun(Exception):
    """The machine or an installed package has not what the case needs."""


class OutOfTime(Exception):
    """The time box of the case is over."""


def measure(case: Case) -> dict[str, Any]:
    """The figures, or under ``said`` why there are none."""
    way = {"image": _measure_image, "encoder": _measure_encoder, "peak": _measure_peak}[case.part]
    try:
        found = way(case, time.monotonic() + case.seconds)
    except (CannotRun, OutOfTime) as error:
        found = {"said": str(error)}
    except Exception as error:  # noqa: BLE001 - whatever torch raises is this case's result
        words = str(error).strip().splitlines() or [""]
        found = {"said": f"{type(error).__name__}: {words[0][:200]}"}
    return found | _machine(case.device)


def _measure_peak(case: Case, deadline: float) -> dict[str, Any]:
    """The best of several sizes of one matrix product, in TFLOP/s: what the share is a share of."""
    best = 0.0
    for size in (512, 1024) if case.device == "cpu" else (4096, 8192, 16_384):
        multiply = _product(case, size)
        for _ in range(3):
            multiply()
        for _ in range(5):
            count = 1 if case.device == "cpu" else max(1, 8192**3 // size**3) * 4
            _wait(case.device)
            started = time.perf_counter()
            for _ in range(count):
                multiply()
            _wait(case.device)
            best = max(best, 2 * size**3 * count / (time.perf_counter() - started) / 1e12)
        if time.monotonic() > deadline:
            break
    return {"tflops": best}


def _product(case: Case, size: int) -> Callable[[], Any]:

    left, right = (torch.randn(size, size, device=case.device, dtype=_dtype(case)) for _ in range(2))
    if case.precision != "fp8":
        return lambda: left @ right
    _check_fp8(case.device)
    low, high = left.to(torch.float8_e4m3fn), right.to(torch.float8_e4m3fn).t()
    rows, columns = (torch.ones(shape, device=case.device) for shape in ((size, 1), (1, size)))
    return lambda: torch._scaled_mm(low, high, rows, columns, out_dtype=torch.bfloat16)  # noqa: SLF001


def _measure_encoder(case: Case, _deadline: float) -> dict[str, Any]:
    """The text encoder alone: one prompt of 512 tokens."""
    name, config = SHAPES[case.model].encoder
    made = getattr(transformers, f"{name}Config")(**config)
    model = _random(lambda: getattr(transformers, f"{name}Model")(made), case)
    model.rotary_emb = type(model.rotary_emb)(config=made).to(case.device)  # its buffer is no weight
    tokens = torch.randint(made.vocab_size, (1, TEXT_TOKENS), device=case.device)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        with torch.no_grad():
            model(input_ids=tokens, output_hidden_states=True, use_cache=False)
        _wait(case.device)
        times.append(time.perf_counter() - started)
    return {"image_s": min(times), "parameters": _count(model), **_memory(case.device)}


def _measure_image(case: Case, deadline: float) -> dict[str, Any]:

    if case.precision == "fp8":
        _check_fp8(case.device)
    started = time.monotonic()
    flops = _flops(case)
    pipe = _pipe(case)
    if case.precision == "fp8":
        _quantise(pipe.transformer)
    if case.attention != "native":
        pipe.transformer.set_attention_backend(case.attention)
    if case.compile == "regional":
        pipe.transformer.compile_repeated_blocks(fullgraph=True)
    built = time.monotonic() - started
    started = time.monotonic()
    _draw(pipe, case, WARM_STEPS, deadline)
    warmed = time.monotonic() - started
    images, steps = [], []
    skipped = skipped_steps(case.steps, case.cache)
    for _ in range(case.rounds):
        whole, each = _draw(pipe, case, case.steps, deadline, skipped)
        images.append(whole)
        steps += each
    computed = case.steps - len(skipped)
    denoise = statistics.median(steps)
    return {
        "image_s": statistics.median(images) / case.batch,
        "step_s": denoise / case.steps,
        "computed_steps": computed,
        "tflop_step": flops / 1e12,
        "tflops": flops * computed / denoise / 1e12,
        "build_s": built,
        "warm_up_s": warmed,
        "parameters": _count(pipe.transformer),
        **_memory(case.device),
    }


def _pipe(case: Case) -> Any:
    """Transformer and VAE with random weights; the embeddings come as random numbers too."""
    shape = SHAPES[case.model]
    transformer = _random(lambda: diffusers.Flux2Transformer2DModel(**shape.transformer), case)
    vae = _random(lambda: diffusers.AutoencoderKLFlux2(**shape.vae), case)
    if case.device != "cpu":
        vae.to(memory_format=torch.channels_last)
    more = {} if shape.pipeline == "Flux2Pipeline" else {"is_distilled": True}
    pipe = getattr(diffusers, shape.pipeline)(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        transformer=transformer,
        **more,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _random(make: Callable[[], Any], case: Case) -> Any:
    """A model that was never on the host: its shapes on the meta device, then random numbers on the device itself."""
    with torch.device("meta"):
        model = make()
    model = model.to(_dtype(case)).to_empty(device=case.device).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            weight.normal_(0, weight[0].numel() ** -0.5)
        else:
            weight.fill_(1.0 if name.endswith("weight") else 0.0)
    for name, buffer in model.named_buffers():
        buffer.fill_(1 if name.endswith("running_var") else 0)
    return model


def _draw(
    pipe: Any, case: Case, steps: int, deadline: float, skipped: frozenset[int] = frozenset()
) -> tuple[float, list[float]]:
    """Seconds of one call, VAE and picture included, and of its denoising: from before the first step to the last."""
    width = pipe.transformer.config.joint_attention_dim
    embeds = torch.randn(case.batch, TEXT_TOKENS, width, device=case.device, dtype=_dtype(case))
    ended = 0.0

    def after(_pipe: Any, step: int, *_: object) -> dict[str, Any]:
        nonlocal ended
        if step == steps - 1:
            _wait(case.device)
            ended = time.perf_counter()
        if time.monotonic() > deadline:
            raise OutOfTime(f"out of time after step {step + 1} of {steps}; the box is {case.seconds:.0f} s")
        return {}

    _wait(case.device)
    with skipping(pipe.transformer, skipped) if skipped else nullcontext():
        started = time.perf_counter()
        pipe(
            prompt_embeds=embeds,
            height=case.size,
            width=case.size,
            num_inference_steps=steps,
            guidance_scale=SHAPES[case.model].guidance,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in range(case.batch)],
            callback_on_step_end=after,
            callback_on_step_end_tensor_inputs=[],
        )
        return time.perf_counter() - started, [ended - started]


def _flops(case: Case) -> float:
    """Of one computed pass, counted on the real architecture without its weights."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model = diffusers.Flux2Transformer2DModel(**SHAPES[case.model].transformer)
        tokens = (case.size // 16) ** 2
        guided = model.config.guidance_embeds
        model(
            hidden_states=torch.zeros(case.batch, tokens, model.config.in_channels),
            encoder_hidden_states=torch.zeros(case.batch, TEXT_TOKENS, model.config.joint_attention_dim),
            timestep=torch.zeros(case.batch),
            guidance=torch.zeros(case.batch) if guided else None,
            img_ids=torch.zeros(tokens, 4),
            txt_ids=torch.zeros(TEXT_TOKENS, 4),
        )
    return float(counter.get_total_flops())


def _check_fp8(device: str) -> None:

    if not device.startswith("cuda"):
        raise CannotRun("fp8 needs an NVIDIA GPU")
    capability = torch.cuda.get_device_capability(device)
    if capability < FP8_CAPABILITY:
        raise CannotRun(f"fp8 needs compute capability 8.9; this is {capability[0]}.{capability[1]}")


def _quantise(transformer: Any) -> None:
    """FP8, dynamic and row-wise, of the linear layers inside the blocks."""
    try:
        from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_  # noqa: PLC0415 - may be missing
    except ImportError:
        raise CannotRun("fp8 needs torchao, which is not installed") from None
    config = Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())
    quantize_(
        transformer, config, lambda module, name: isinstance(module, torch.nn.Linear) and "transformer_blocks." in name
    )


def _dtype(case: Case) -> Any:

    return torch.float32 if case.precision == "fp32" or case.device == "cpu" else torch.bfloat16


def _count(model: Any) -> int:
    return sum(weight.numel() for weight in model.parameters())


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _memory(device: str) -> dict[str, float]:
    """Peak in GiB: of the device's allocator, or of the process on a CPU."""
    if device.startswith("cuda"):
        return {"peak_gib": torch.cuda.max_memory_allocated(device) / 2**30}
    return {"peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def _machine(device: str) -> dict[str, Any]:

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") and torch.cuda.is_available() else ""
    return {"hardware": name or f"{platform.machine()} CPU, {torch.get_num_threads()} threads"}


if __name__ == "__main__":
    sys.stdout.write(f"{RESULT}{json.dumps(measure(Case(**json.loads(sys.argv[1]))))}\n")
