from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fluxfarm.errors import (
    FluxfarmError,
    InvalidField,
    InvalidPrompt,
    InvalidReference,
    InvalidSize,
    PromptTooLong,
)
from tests.workers.pipeline_drawings import SECRET, counted, drawing, gradient, pixels, quietly
from workers.pipeline import Pipeline
from workers.pipeline_embeddings import Embeddings, Place

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


def test_embeddings_are_shared_by_sizes_and_seeds_and_outlive_the_model(klein_folder: Path) -> None:
    embeddings = Embeddings(1 << 20)
    with_cache, without = (
        Pipeline.load(klein_folder, device="cpu", embeddings=kept) for kept in (embeddings, Embeddings(0))
    )
    with counted(with_cache._pipe.text_encoder) as encoded:
        for width, seed, length in ((64, 1, 64), (96, 2, 64), (64, 3, 64)):
            changes = {"width": width, "seeds": (seed,), "max_sequence_length": length}
            assert pixels(with_cache, **changes) == pixels(without, **changes)
    assert len(encoded) == 2
    with_cache.close()
    again = Pipeline.load(klein_folder, device="cpu", embeddings=embeddings)
    with counted(again._pipe.text_encoder) as encoded:
        pixels(again, max_sequence_length=64)
        assert encoded == []
        pixels(again, max_sequence_length=48)
    assert len(encoded) == 2
    again.close()
    without.close()


def test_embeddings_never_hold_more_bytes_than_they_may() -> None:
    embeddings = Embeddings(4000)
    places = [Place("weights", str(n), 8) for n in range(6)]
    for place in places:
        embeddings.keep(place, torch.zeros(1, 250))  # 1000 bytes
        assert embeddings.find(places[0]) is not None or place is not places[0]
    assert [embeddings.find(place) is not None for place in places] == [True, False, False, True, True, True]
    assert embeddings._bytes == 4000
    embeddings.keep(places[5], torch.zeros(1, 1001))
    assert embeddings.find(places[5]) is None, "what is larger than the whole is not kept"
    assert embeddings._bytes == 3000, "and pushes nothing out"


def test_a_prompt_is_encoded_once_and_the_picture_does_not_depend_on_it(klein_folder: Path) -> None:
    embeddings = Embeddings(8 * 512 * 288 * 4)
    own = Pipeline.load(klein_folder, device="cpu", embeddings=embeddings)
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
    assert len(embeddings._kept) == 8
    assert "red cat" not in repr(list(embeddings._kept))
    own.close()


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
