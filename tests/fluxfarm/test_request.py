"""The canonical request: prompts, seeds and the order in which sizes win."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fluxfarm.catalog import DEV, SMALL
from fluxfarm.errors import InvalidField, InvalidPrompt, InvalidSize
from fluxfarm.jobs import JobType
from fluxfarm.request import (
    MAX_PROMPT_BYTES,
    MAX_PROMPT_CHARACTERS,
    MAX_SEED,
    RenderRequest,
    check_prompt,
    choose_seeds,
    choose_size,
)
from fluxfarm.sizes import Size

REQUEST = RenderRequest(
    type=JobType.IMAGE_GENERATOR,
    model="flux-2-small",
    prompt="a secret plan",
    width=250,
    height=130,
    seeds=(1, 2),
    steps=4,
    guidance=3.0,
    output_format="webp",
    output_quality=80,
    references=("ref_secret",),
)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("a lighthouse", "a lighthouse"),
        ("  two  spaces stay inside \n", "two  spaces stay inside"),
        ("line\nbreak\ttab\r\n.", "line\nbreak\ttab\r\n."),
        ("e\u0301", "\u00e9"),
        ("emoji 👩\u200d🚀 and عربى and 日本", "emoji 👩\u200d🚀 and عربى and 日本"),
        ("\u202eright to left", "\u202eright to left"),
        ("x" * MAX_PROMPT_CHARACTERS, "x" * MAX_PROMPT_CHARACTERS),
        ("😀" * 4000, "😀" * 4000),
    ],
)
def test_text_is_taken_in_nfc_without_spaces_around_it(sent: str, read: str) -> None:
    assert check_prompt(sent) == read
    assert len(read.encode()) <= MAX_PROMPT_BYTES


@pytest.mark.parametrize(
    ("sent", "word"),
    [
        ("", "empty"),
        (" \n\t\u3000", "empty"),
        ("x" * (MAX_PROMPT_CHARACTERS + 1), "4,001 characters"),
        ("half \ud83d", "surrogate"),
        ("\udfff", "surrogate"),
        ("nul \0 inside", "control"),
        ("escape \x1b[31m", "control"),
        ("delete \x7f", "control"),
        ("next line \x85 of C1", "control"),
    ],
)
def test_what_is_no_prompt_is_refused_with_the_reason(sent: str, word: str) -> None:
    with pytest.raises(InvalidPrompt, match=word):
        check_prompt(sent)


@given(st.text(max_size=200))
def test_a_prompt_that_was_taken_is_taken_again_unchanged(text: str) -> None:
    try:
        prompt = check_prompt(text)
    except InvalidPrompt:
        return
    assert check_prompt(prompt) == prompt
    assert prompt.encode().decode() == prompt


@given(st.text(max_size=50, alphabet=st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF, categories=["Cs"])))
def test_surrogates_never_crash(text: str) -> None:
    with pytest.raises(InvalidPrompt):
        check_prompt(text)


def test_a_seed_is_followed_by_its_successors_and_wraps_at_the_end() -> None:
    assert choose_seeds(7, 3) == (7, 8, 9)
    assert choose_seeds(0, 1) == (0,)
    assert choose_seeds(MAX_SEED, 3) == (MAX_SEED, 0, 1)
    assert MAX_SEED == 2**63 - 1


def test_without_a_seed_each_image_has_its_own() -> None:
    seeds = choose_seeds(None, 10)
    assert len(set(seeds)) == 10
    assert all(0 <= seed <= MAX_SEED for seed in seeds)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, 2**64])
def test_a_seed_outside_is_refused(seed: int) -> None:
    with pytest.raises(InvalidField) as caught:
        choose_seeds(seed, 1)
    assert caught.value.param == "seed"


def test_size_wins_over_sides_and_these_over_ratio_and_area() -> None:
    everything = {"width": 320, "height": 240, "aspect_ratio": "1:1", "area": "0.25"}
    assert choose_size(DEV, size="640x480", **everything) == Size(640, 480)  # type: ignore[arg-type]
    assert choose_size(DEV, size="auto", **everything) == Size(320, 240)  # type: ignore[arg-type]
    assert choose_size(DEV, size="4:3", area="1K") == Size(1183, 887)
    assert choose_size(DEV, aspect_ratio="1:1", area="0.25") == Size(512, 512)
    assert choose_size(DEV, area="0.25") == Size(512, 512)
    assert choose_size(DEV) == DEV.default_size
    assert choose_size(DEV, size=" AUTO ") == DEV.default_size


def test_an_edit_takes_the_shape_of_its_first_reference() -> None:
    wide = Size(4000, 2000)
    assert choose_size(DEV, reference=wide) == Size(1448, 724)
    assert choose_size(DEV, reference=wide, aspect_ratio="match_input_image", area="0.25") == Size(724, 362)
    assert choose_size(DEV, reference=wide, aspect_ratio="1:1") == Size(1024, 1024)
    assert choose_size(DEV, reference=wide, size="64x64") == Size(64, 64)


def test_a_size_beyond_the_model_and_half_a_size_are_refused() -> None:
    with pytest.raises(InvalidSize):
        choose_size(SMALL, size="1025x1024")
    with pytest.raises(InvalidSize):
        choose_size(DEV, reference=Size(9000, 100))
    for half in ({"width": 64}, {"height": 64}):
        with pytest.raises(InvalidField, match="go together"):
            choose_size(DEV, **half)  # type: ignore[arg-type]


def test_a_request_is_frozen_and_takes_nothing_else() -> None:
    with pytest.raises(ValidationError):
        REQUEST.steps = 5  # type: ignore[misc]
    with pytest.raises(ValidationError):
        RenderRequest.model_validate(REQUEST.model_dump() | {"extra": 1})
    with pytest.raises(ValidationError):
        RenderRequest.model_validate(REQUEST.model_dump() | {"seeds": ()})
    assert RenderRequest.model_validate_json(REQUEST.model_dump_json()) == REQUEST


def test_what_is_recorded_as_effective_holds_no_prompt_and_no_reference() -> None:
    assert REQUEST.n == 2
    assert REQUEST.size == Size(250, 130)
    assert REQUEST.profile is SMALL
    assert "secret" not in str(REQUEST.effective())
    assert REQUEST.effective()["steps"] == 4
