"""Each setting of the kernels reaches torch, changes no picture by more than rounding, or says why it cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry as Registry

from fluxfarm.errors import ModelUnavailable
from tests.conftest import ROOT
from tests.workers.pipeline_drawings import pixels
from workers.pipeline import Pipeline
from workers.pipeline_kernels import Kernels, fastest_attention, set_attention


@contextmanager
def loaded(folder: Path, **kernels: Any) -> Iterator[Pipeline]:
    pipeline = Pipeline.load(folder, device="cpu", kernels=Kernels(**kernels))
    yield pipeline
    pipeline.close()


def apart(one: list[bytes], other: list[bytes]) -> int:
    """The largest difference between two pictures, of 255."""
    return max(abs(a - b) for a, b in zip(one[0], other[0], strict=True))


def backends(pipeline: Pipeline) -> set[str]:
    processors = [module.processor for module in pipeline._pipe.transformer.modules() if hasattr(module, "processor")]
    return {str(getattr(one._attention_backend, "value", one._attention_backend)) for one in processors}


def test_the_defaults_are_plain(klein: Pipeline) -> None:
    assert klein.tuned == {
        "quantization": "none",
        "compile": "none",
        "attention": "native",
        "vaeLayout": "contiguous",
    }


def test_the_vae_lies_channels_last_and_draws_the_same(klein: Pipeline, klein_folder: Path) -> None:
    with loaded(klein_folder, channels_last="on") as pipeline:
        assert pipeline._pipe.vae.decoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
        assert pipeline.tuned["vaeLayout"] == "channels_last"
        assert apart(pixels(pipeline), pixels(klein)) <= 1
    assert not klein._pipe.vae.decoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_regional_compilation_draws_the_same_also_with_steps_left_out(
    klein: Pipeline, klein_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.pipeline_kernels.COMPILER", "aot_eager")  # traced as ever, without the code for a CPU
    torch._dynamo.reset()
    with loaded(klein_folder, compile="regional") as pipeline:
        transformer = pipeline._pipe.transformer
        blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
        assert all(block._compiled_call_impl is not None for block in blocks)
        wanted = {"steps": 8, "guidance": 1.0, "acceleration": "high"}
        assert apart(pixels(pipeline, **wanted), pixels(klein, **wanted)) <= 1
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2  # one of each kind of block
    torch._dynamo.reset()


def test_a_compiler_that_is_not_there_is_said(klein_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.pipeline_kernels.COMPILER", "nobodys")
    with pytest.raises(ModelUnavailable, match="FLUXFARM_COMPILE=regional cannot be had here"):
        Pipeline.load(klein_folder, device="cpu", kernels=Kernels(compile="regional"))


def test_a_backend_reaches_every_attention_of_its_own_model_only(
    klein: Pipeline, klein_folder: Path, dev: Pipeline
) -> None:
    before = Registry.get_active_backend()[0]
    with loaded(klein_folder, attention="_native_math") as pipeline:
        assert backends(pipeline) == {"_native_math"}
        assert backends(klein) == backends(dev) == {"native"}
        assert Registry.get_active_backend()[0] == before
        assert apart(pixels(pipeline), pixels(klein)) <= 1


@pytest.mark.parametrize(
    ("kernels", "said"),
    [
        ({"attention": "nonsense"}, "FLUXFARM_ATTENTION is 'nonsense', which cannot be used"),
        ({"attention": "flash"}, "FLUXFARM_ATTENTION is 'flash', which cannot be used"),
        ({"quantization": "fp8"}, "FLUXFARM_QUANTIZATION=fp8 needs an NVIDIA GPU, and this worker draws on cpu"),
    ],
)
def test_what_cannot_be_had_is_said_when_the_model_is_loaded(
    klein_folder: Path, kernels: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelUnavailable) as refused:
        Pipeline.load(klein_folder, device="cpu", kernels=Kernels(**kernels))
    assert refused.value.message.startswith(said)
    assert not refused.value.retryable


def test_auto_takes_what_works_and_passes_over_what_does_not(own: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    transformer = own._pipe.transformer
    asked = ("native", "_native_math", "_native_cudnn", "flash", "nonsense")
    chosen = fastest_attention(transformer, asked, tokens=64)
    told = capsys.readouterr().out
    assert chosen in {"native", "_native_math"}
    for backend in asked[2:]:
        assert f"backend={backend}" in told
    set_attention(transformer, chosen)
    assert pixels(own)
    assert fastest_attention(transformer, ("native",)) == "native"


def test_a_backend_that_gives_something_else_is_never_chosen(own: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: Callable[..., Any] = lambda query, *_, **__: torch.zeros_like(query)  # noqa: E731 - faster than any
    backend = next(name for name in Registry._backends if name.value == "_native_math")
    monkeypatch.setitem(Registry._backends, backend, wrong)
    monkeypatch.setattr("workers.pipeline_kernels.MARGIN", 1e9)  # were it right, it would be taken
    assert fastest_attention(own._pipe.transformer, ("native", "_native_math"), tokens=64) == "native"


@pytest.mark.parametrize(
    ("before", "after"), [({}, "expandable_segments:True"), ({"PYTORCH_ALLOC_CONF": "x:1"}, "x:1")]
)
def test_the_allocator_is_told_before_torch_is_there(before: dict[str, str], after: str) -> None:
    code = (
        "import os, sys; from workers import pipeline_kernels as kernels; assert 'torch' not in sys.modules;"
        "kernels.prepare_allocator(); print(os.environ['PYTORCH_ALLOC_CONF'])"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTORCH_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=clean | before
    )
    assert done.stdout.strip() == after
