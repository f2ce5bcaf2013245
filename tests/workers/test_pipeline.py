from __future__ import annotations

import gc
import json
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import MagCacheConfig, TaylorSeerCacheConfig
from PIL import Image

from fluxfarm.errors import (
    Canceled,
    DatabaseUnavailable,
    DeviceLost,
    FluxfarmError,
    InvalidField,
    InvalidPrompt,
    InvalidReference,
    InvalidSize,
    LeaseLost,
    OutOfMemory,
    PromptTooLong,
    RenderFailed,
)
from workers.pipeline import Drawing, Pipeline

SECRET = "a zebra that nobody must read about"


def drawing(**changes: Any) -> Drawing:
    fields = {"prompt": "a red cat", "width": 64, "height": 64, "steps": 2, "guidance": 3.0, "seeds": (5,), **changes}
    return Drawing(**fields)


def quietly(_done: int, _total: int) -> None:
    pass


def pixels(pipeline: Pipeline, **changes: Any) -> list[bytes]:
    return [image.tobytes() for image in pipeline.draw(drawing(**changes), quietly)]


def gradient(width: int, height: int) -> Image.Image:
    return Image.linear_gradient("L").resize((width, height)).convert("RGB")


@contextmanager
def hooked(module: Any, hook: Callable[..., None]) -> Iterator[None]:
    """Runs the hook after each call of a part of the real pipeline."""
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def counted(module: Any) -> Iterator[list[int]]:
    calls: list[int] = []
    with hooked(module, lambda *_: calls.append(1)):
        yield calls


@pytest.fixture
def own(klein_folder: Path) -> Iterator[Pipeline]:
    """A pipeline that the test may spoil."""
    pipeline = Pipeline.load(klein_folder, device="cpu")
    yield pipeline
    pipeline.close()


# --- what is drawn --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["dev", "klein"])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (128, 64), (80, 112)])
def test_an_image_has_the_size_asked_for(shape: str, width: int, height: int, request: pytest.FixtureRequest) -> None:
    (image,) = request.getfixturevalue(shape).draw(drawing(width=width, height=height), quietly)
    assert (image.size, image.mode) == ((width, height), "RGB")
    assert len(set(image.tobytes())) > 100


@pytest.mark.parametrize("shape", ["dev", "klein"])
def test_the_same_drawing_again_is_the_same_to_the_bit_and_anything_else_is_not(
    shape: str, request: pytest.FixtureRequest
) -> None:
    pipeline: Pipeline = request.getfixturevalue(shape)
    first = pixels(pipeline)
    assert pixels(pipeline) == first
    changes: list[dict[str, Any]] = [
        {"seeds": (6,)},
        {"prompt": "a blue dog"},
        {"steps": 3},
        {"guidance": 5.0},
        {"references": (gradient(64, 64),)},
        {"max_sequence_length": 256},
    ]
    for change in changes:
        assert pixels(pipeline, **change) != first, change
    assert pixels(pipeline) == first


def test_each_image_follows_its_own_seed_alone(klein: Pipeline) -> None:
    seeds = (0, 2**63 - 1, 0, 7)
    together = pixels(klein, seeds=seeds)
    assert together == [pixels(klein, seeds=(seed,))[0] for seed in seeds]
    assert together[0] == together[2]
    assert len(set(together)) == 3


def test_the_global_generator_is_neither_read_nor_moved(klein: Pipeline) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = pixels(klein)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert pixels(klein) == first


def test_a_pipeline_that_is_loaded_again_draws_the_same(klein: Pipeline, own: Pipeline) -> None:
    assert pixels(own) == pixels(klein)
    assert own.revision == klein.revision


def test_two_threads_draw_one_after_another_and_both_right(klein: Pipeline) -> None:
    expected = {seed: pixels(klein, seeds=(seed,)) for seed in range(4)}
    found: dict[int, list[bytes]] = {}

    def draw(seed: int) -> None:
        found[seed] = pixels(klein, seeds=(seed,))

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


# --- guidance -------------------------------------------------------------------------------------------------------


def test_guidance_is_a_vector_in_one_pass_for_dev(dev: Pipeline) -> None:
    assert dev.guidance_kind == "embedded"
    with counted(dev._pipe.transformer) as passes:
        pictures = {pixels(dev, guidance=guidance, steps=3)[0] for guidance in (0.0, 1.0, 4.0)}
    assert len(pictures) == 3
    assert len(passes) == 3 * 3


def test_guidance_above_one_is_a_second_pass_for_an_undistilled_klein(klein: Pipeline) -> None:
    assert klein.guidance_kind == "cfg"
    for guidance, expected in ((0.0, 3), (1.0, 3), (1.5, 6), (4.0, 6)):
        with counted(klein._pipe.transformer) as passes:
            pixels(klein, guidance=guidance, steps=3)
        assert len(passes) == expected
    assert pixels(klein, guidance=4.0) != pixels(klein, guidance=1.5) != pixels(klein, guidance=1.0)


def test_guidance_does_nothing_for_a_distilled_klein(klein_folder: Path, copied: Callable[[Path], Path]) -> None:
    folder = copied(klein_folder)
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "is_distilled": True}))
    distilled = Pipeline.load(folder, device="cpu")
    assert distilled.guidance_kind == "fixed"
    with counted(distilled._pipe.transformer) as passes:
        assert pixels(distilled, guidance=4.0) == pixels(distilled, guidance=1.0)
    assert len(passes) == 4


# --- prompts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["dev", "klein"])
def test_tokens_are_counted_with_the_template_and_a_prompt_that_is_too_long_is_refused(
    shape: str, request: pytest.FixtureRequest
) -> None:
    pipeline: Pipeline = request.getfixturevalue(shape)
    own_words = len(pipeline._pipe.tokenizer("cat")["input_ids"])
    assert pipeline.count_tokens("cat") > own_words
    assert (pipeline.count_tokens("cat") > own_words + 20) == (shape == "dev")  # the system message

    fits = "cat " * 600
    while pipeline.count_tokens(fits) > 512:
        fits = fits[:-4]
    assert pipeline.count_tokens(fits) == 512
    assert len(pixels(pipeline, prompt=fits)) == 1
    with counted(pipeline._pipe.text_encoder) as encoded, pytest.raises(PromptTooLong) as caught:
        pixels(pipeline, prompt=fits + SECRET)
    assert encoded == []
    assert "the model reads 512" in caught.value.message
    assert "zebra" not in caught.value.message
    assert (caught.value.code, caught.value.retryable) == ("prompt_too_long", False)


def test_what_is_counted_is_what_the_pipeline_reads(klein: Pipeline, dev: Pipeline) -> None:
    for pipeline in (klein, dev):
        seen: list[int] = []

        def look(_module: Any, _positional: Any, named: Any, _result: Any, into: list[int] = seen) -> None:
            into.append(int(named["attention_mask"].sum()))

        handle = pipeline._pipe.text_encoder.register_forward_hook(look, with_kwargs=True)
        prompt = "a prompt of its own, for the count [IMG]"
        pixels(pipeline, prompt=prompt, guidance=1.0)
        handle.remove()
        assert seen == [pipeline.count_tokens(prompt)]


def test_the_end_of_a_long_prompt_counts(klein: Pipeline) -> None:
    words = "a cat on a table " * 20
    assert pixels(klein, prompt=f"{words}red") != pixels(klein, prompt=f"{words}blue")


def test_the_models_own_sequence_length_is_the_limit(klein: Pipeline) -> None:
    with pytest.raises(PromptTooLong, match="the model reads 32"):
        pixels(klein, prompt="a large orange square on the right " * 4, max_sequence_length=32)
    assert pixels(klein, max_sequence_length=32) != pixels(klein)


def test_a_prompt_is_encoded_once_and_the_picture_does_not_depend_on_it(own: Pipeline) -> None:
    with counted(own._pipe.text_encoder) as encoded:
        first = pixels(own, seeds=(5, 6))
        assert len(encoded) == 2  # the prompt, and the empty one for the second pass
        assert pixels(own, seeds=(5, 6)) == first
        assert len(encoded) == 2
        pixels(own, max_sequence_length=256)
        assert len(encoded) == 4
        for number in range(12):
            pixels(own, prompt=f"number {number}", steps=1)
        assert len(encoded) == 16
        assert pixels(own, seeds=(5, 6)) == first
        assert len(encoded) == 17  # long out of the cache; the empty prompt is in use and stays
    assert len(own._prompts._kept) == 8
    assert "red cat" not in repr(list(own._prompts._kept))


def test_counting_does_not_wait_for_a_render(klein: Pipeline) -> None:
    inside, counted_there = threading.Event(), threading.Event()

    def wait(_done: int, _total: int) -> None:
        inside.set()
        assert counted_there.wait(10)

    thread = threading.Thread(target=klein.draw, args=(drawing(steps=1), wait))
    thread.start()
    assert inside.wait(10)
    assert klein.count_tokens("a cat") > 0
    counted_there.set()
    thread.join()


# --- references -----------------------------------------------------------------------------------------------------


def test_references_change_the_picture_and_so_does_their_order(klein: Pipeline, dev: Pipeline) -> None:
    one, two = gradient(64, 80), gradient(64, 80).rotate(180)
    for pipeline in (klein, dev):
        pictures = [pixels(pipeline, references=images)[0] for images in ((), (one,), (one, two), (two, one))]
        assert len(set(pictures)) == 4
    assert pixels(klein, references=(one, two), seeds=(1, 2)) == [
        *pixels(klein, references=(one, two), seeds=(1,)),
        *pixels(klein, references=(one, two), seeds=(2,)),
    ]


def test_the_size_is_the_one_asked_for_and_not_the_references(klein: Pipeline) -> None:
    references = (gradient(160, 96), *[gradient(64, 64)] * 8, gradient(65, 513))
    (image,) = klein.draw(drawing(width=96, height=64, references=references, steps=1), quietly)
    assert image.size == (96, 64)


def test_a_reference_over_a_megapixel_is_shrunk_to_one(klein: Pipeline) -> None:
    tokens: list[int] = []
    handle = klein._pipe.transformer.register_forward_hook(
        lambda _module, _positional, named, _result: tokens.append(named["hidden_states"].shape[1]), with_kwargs=True
    )
    pixels(klein, references=(gradient(1600, 1600),), steps=1, guidance=1.0, max_sequence_length=64)
    handle.remove()
    assert tokens == [16 + 4096]  # 64x64 to draw, 1024x1024 to look at


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"prompt": ""}, InvalidPrompt),
        ({"prompt": " \n"}, InvalidPrompt),
        ({"width": 100}, InvalidSize),
        ({"height": 130}, InvalidSize),
        ({"width": 0}, InvalidSize),
        ({"height": -16}, InvalidSize),
        ({"steps": 0}, InvalidField),
        ({"guidance": -0.1}, InvalidField),
        ({"guidance": float("nan")}, InvalidField),
        ({"guidance": float("inf")}, InvalidField),
        ({"seeds": ()}, InvalidField),
        ({"seeds": (1, -1)}, InvalidField),
        ({"seeds": (2**63,)}, InvalidField),
        ({"max_sequence_length": 0}, InvalidField),
        ({"references": (gradient(63, 64),)}, InvalidReference),
        ({"references": (gradient(64, 513),)}, InvalidReference),
        ({"references": (gradient(64, 64).convert("RGBA"),)}, InvalidReference),
        ({"references": (gradient(64, 64).convert("L"),)}, InvalidReference),
        ({"references": (gradient(64, 64),) * 11}, InvalidReference),
    ],
)
def test_what_would_crash_or_draw_something_else_is_refused(
    changes: dict[str, Any], error: type[FluxfarmError]
) -> None:
    with pytest.raises(error):
        drawing(**changes)


# --- steps, stops and failures --------------------------------------------------------------------------------------


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
            time.sleep(0.05)

    assert len(own.draw(drawing(steps=3, seeds=(1, 2)), close)) == 2
    closer.join()
    with pytest.raises(RenderFailed):
        pixels(own)
