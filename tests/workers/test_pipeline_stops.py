from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from diffusers import MagCacheConfig, TaylorSeerCacheConfig

from fluxfarm.errors import (
    Canceled,
    DatabaseUnavailable,
    DeviceLost,
    FluxfarmError,
    LeaseLost,
    OutOfMemory,
    RenderFailed,
)
from tests.workers.pipeline_drawings import SECRET, counted, drawing, gradient, hooked, pixels
from workers.pipeline import Pipeline


def test_every_step_of_every_image_is_reported(klein: Pipeline, dev: Pipeline) -> None:
    for pipeline in (klein, dev):
        steps: list[tuple[int, int]] = []

        def report(done: int, total: int, into: list[tuple[int, int]] = steps) -> None:
            into.append((done, total))

        pipeline.draw(drawing(steps=3, seeds=(1, 2)), report)
        assert steps == [(done, 6) for done in range(1, 7)]


class StopAt:
    """Raises one and the same error at a step."""

    def __init__(self, step: int, error: Exception) -> None:
        self.step = step
        self.error = error

    def __call__(self, done: int, _total: int) -> None:
        if done == self.step:
            raise self.error


@pytest.mark.parametrize("error", [Canceled("enough"), LeaseLost("late"), DatabaseUnavailable("down")])
def test_an_error_of_the_farm_stops_the_drawing_at_once_and_passes_as_it_is(klein: Pipeline, error: Exception) -> None:
    expected = pixels(klein, steps=4)
    with counted(klein._pipe.transformer) as passes, pytest.raises(type(error)) as caught:
        klein.draw(drawing(steps=4, guidance=1.0, seeds=(1, 2)), StopAt(2, error))
    assert caught.value is error
    assert len(passes) == 2
    assert pixels(klein, steps=4) == expected


CACHES: list[Callable[[], Any]] = [
    lambda: MagCacheConfig(mag_ratios=[1.0] * 12, num_inference_steps=12, threshold=0.5, retention_ratio=0.1),
    lambda: TaylorSeerCacheConfig(cache_interval=3, disable_cache_before_step=2, max_order=1),
]


@pytest.mark.parametrize("config", CACHES, ids=["magcache", "taylorseer"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_after_a_stop_the_next_picture_is_untouched_also_with_a_step_cache(
    own: Pipeline, config: Callable[[], Any], guidance: float
) -> None:
    plain = pixels(own, steps=12, guidance=guidance)
    own._pipe.transformer.enable_cache(config())
    cached = pixels(own, steps=12, guidance=guidance)
    assert cached != plain  # the cache does something, so that there is a state to leak
    for step in (1, 5, 8):
        with pytest.raises(Canceled):
            own.draw(drawing(prompt="another", steps=12, seeds=(99,), guidance=guidance), StopAt(step, Canceled("")))
        assert pixels(own, steps=12, guidance=guidance) == cached


@pytest.mark.parametrize("error", [Canceled("enough"), ValueError("oops")], ids=["cancel", "crash"])
def test_no_tensor_outlives_a_stop_even_while_its_error_is_kept(own: Pipeline, error: Exception) -> None:
    seen: list[weakref.ref[torch.Tensor]] = []
    handle = own._pipe.transformer.register_forward_hook(
        lambda _module, _positional, named, result: seen.extend(
            weakref.ref(tensor) for tensor in (named["hidden_states"], named["img_ids"], named["txt_ids"], *result)
        ),
        with_kwargs=True,
    )
    gc.collect()
    gc.disable()  # freed at once, not when the collector comes by
    try:
        with pytest.raises(FluxfarmError) as caught:
            own.draw(drawing(steps=4, references=(gradient(64, 64),)), StopAt(2, error))
        alive = [reference for reference in seen if reference() is not None]
    finally:
        gc.enable()
        handle.remove()
    assert len(seen) == 16
    assert alive == []
    assert caught.value.__cause__ is None


def out_of_memory(*_: object) -> None:
    torch.empty(2**60)  # a real one, of torch's own allocator


def say(error: Exception) -> Callable[..., None]:
    def hook(*_: object) -> None:
        raise error

    return hook


@pytest.mark.parametrize("part", ["transformer", "text_encoder"])
@pytest.mark.parametrize(
    "hook",
    [out_of_memory, say(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")), say(MemoryError())],
    ids=["torch", "cuda", "python"],
)
def test_out_of_memory_is_told_apart_and_the_next_drawing_works(
    own: Pipeline, klein: Pipeline, part: str, hook: Callable[..., None]
) -> None:
    with hooked(getattr(own._pipe, part), hook), pytest.raises(OutOfMemory) as caught:
        pixels(own, prompt=SECRET)
    assert caught.value.retryable
    assert pixels(own) == pixels(klein)


def test_a_device_that_is_found_dead_while_cleaning_up_is_lost_as_well(own: Pipeline) -> None:
    def dead(*_: object) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    own._pipe.transformer._reset_stateful_cache = dead
    with pytest.raises(DeviceLost):
        own.draw(drawing(), StopAt(1, ValueError("first seen as this")))
    with pytest.raises(DeviceLost):
        pixels(own)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA"),
    ],
    ids=["accelerator", "runtime"],
)
def test_after_an_error_of_the_device_the_pipeline_draws_no_more(own: Pipeline, error: Exception) -> None:
    with hooked(own._pipe.transformer, say(error)), pytest.raises(DeviceLost) as caught:
        pixels(own, prompt=SECRET)
    assert (caught.value.code, caught.value.retryable) == ("device_lost", True)
    with pytest.raises(DeviceLost):
        pixels(own)


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "step"])
def test_any_other_error_is_render_failed_and_never_tells_the_prompt(klein: Pipeline, own: Pipeline, part: str) -> None:
    error = ValueError(f"cannot use {SECRET!r}")
    error.__cause__ = KeyError(SECRET)
    hook = nullcontext() if part == "step" else hooked(getattr(own._pipe, part), say(error))
    with hook, pytest.raises(RenderFailed) as caught:
        own.draw(drawing(prompt=SECRET), StopAt(1, error))
    assert "ValueError" in caught.value.message
    told = [caught.value.message, repr(caught.value.__cause__), repr(caught.value.__context__)]
    assert not [text for text in told if "zebra" in text]
    assert caught.value.retryable
    assert pixels(own) == pixels(klein)


def test_torchs_own_words_are_quoted_as_they_help_to_find_the_fault(own: Pipeline) -> None:
    own._pipe.transformer.x_embedder = torch.nn.Linear(3, 3)
    with pytest.raises(RenderFailed, match=r"RuntimeError at torch\S*:\d+: mat1 and mat2 shapes cannot be multiplied"):
        pixels(own)


def test_an_interrupt_passes_through_and_leaves_nothing_either(own: Pipeline, klein: Pipeline) -> None:
    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        own.draw(drawing(), stop)
    assert pixels(own) == pixels(klein)


def test_a_closed_pipeline_frees_its_weights_and_says_so(own: Pipeline) -> None:
    pixels(own)
    weights = weakref.ref(own._pipe.transformer)
    own.close()
    own.close()
    assert weights() is None
    for use in (lambda: pixels(own), lambda: own.count_tokens("a")):
        with pytest.raises(RenderFailed, match="unloaded"):
            use()


def test_closing_waits_for_the_drawing_in_progress(own: Pipeline) -> None:
    closer = threading.Thread(target=own.close)

    def close(done: int, _total: int) -> None:
        if done == 1:
            closer.start()
            closer.join(0.1)
        assert closer.is_alive()

    assert len(own.draw(drawing(steps=3, seeds=(1, 2)), close)) == 2
    closer.join()
    with pytest.raises(RenderFailed):
        pixels(own)
