from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training import captions
from training.captions import ATTRIBUTES, NOTHING, caption, labels, leave_open, of_card, thin_out
from training.cards import Card, coverage, draw, headline_coverage, object_box, object_coverage
from training.evaluate import Judge
from training.sampling import held_out_card, is_held_out, random_card, training_card
from training.words import COLOURS, HEADLINES, OBJECTS

CARD = Card("mug", "red", "white", "left", "top", "large", ("SALE",))
SIZES = [(128, 128), (192, 128), (128, 224), (256, 144), (192, 192), (256, 256)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_card_has_two_colours_and_its_parts_do_not_overlap(width: int, height: int) -> None:
    rng = np.random.default_rng(width * height)
    for card in (random_card(rng) for _ in range(20)):
        picture = draw(card, width, height)
        assert picture.shape == (height, width, 3)
        assert not (object_coverage(card, width, height) * headline_coverage(card, width, height)).any(), card
        mask = coverage(card, width, height)
        assert tuple(picture[mask == 0][0]) == COLOURS[card.background]
        assert tuple(picture[mask == 1][0]) == COLOURS[card.colour]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_an_object_stands_where_the_card_says_on_the_grid_of_tokens(width: int, height: int) -> None:
    boxes = {
        (column, row): object_box(replace(CARD, words=(), column=column, row=row, size="small"), width, height)
        for column in ("left", "centre", "right")
        for row in ("top", "centre", "bottom")
    }
    assert all(left % 16 == 0 and top % 16 == 0 for left, top, _ in boxes.values())
    assert [left for left, *_ in (boxes[name, "top"] for name in ("left", "centre", "right"))] == sorted(
        {left for left, *_ in boxes.values()}
    )
    assert [top for _, top, _ in (boxes["left", name] for name in ("top", "centre", "bottom"))] == sorted(
        {top for _, top, _ in boxes.values()}
    )


def test_all_objects_and_headlines_look_different() -> None:
    for size in ("large", "small"):
        shapes = [object_coverage(replace(CARD, object=name, size=size), 128, 128) for name in OBJECTS]
        words = [headline_coverage(replace(CARD, words=(word,)), 128, 128) for word in HEADLINES]
        for pictures in (shapes, words):
            apart = [np.abs(a - b).sum() / min(a.sum(), b.sum()) for a in pictures for b in pictures if a is not b]
            assert min(apart) > 0.15


@pytest.mark.parametrize(("width", "height"), [(128, 128), (128, 224)])
def test_the_judge_names_every_card_also_through_noise(width: int, height: int) -> None:
    judge = Judge(width, height)
    rng = np.random.default_rng(8)
    for card in (random_card(rng) for _ in range(8)):
        noisy = draw(card, width, height) + rng.normal(0, 25, (height, width, 3))
        assert judge.name(np.clip(noisy, 0, 255).astype(np.uint8)) == card


def test_a_tenth_of_the_cards_is_held_out_and_never_trained_on() -> None:
    rng = np.random.default_rng(9)
    assert 0.07 < np.mean([is_held_out(random_card(rng)) for _ in range(2000)]) < 0.13
    assert not any(is_held_out(training_card(rng)) for _ in range(200))
    assert all(is_held_out(held_out_card(rng)) for _ in range(50))


def test_captions_say_what_is_asked_in_many_ways() -> None:
    rng = np.random.default_rng(10)
    asked = of_card(CARD)
    said = {caption(asked, rng) for _ in range(300)}
    assert len(said) > 290
    for text in said:
        low = text.lower()
        assert "sale" in low
        assert any(word in low for word in OBJECTS["mug"])
        assert "red" in low
        assert "left" in low


def test_what_is_left_unsaid_has_a_label_of_its_own() -> None:
    asked = thin_out(of_card(CARD), np.random.default_rng(11), 1.0)
    assert asked == captions.Asked(first="SALE", second="")
    unsaid = [len(values) for values in ATTRIBUTES.values()]
    assert labels(asked)[:6] == unsaid[:6]
    assert labels(NOTHING) == unsaid
    assert caption(NOTHING, np.random.default_rng(12)) == ""


def test_a_place_or_a_size_is_left_open_only_where_it_is_the_usual_one() -> None:
    rng = np.random.default_rng(13)
    usual = replace(CARD, column="centre", row="centre", size="large")
    odd = replace(CARD, column="left", row="top", size="small")
    open_usual = [leave_open(of_card(usual), rng, 0.1) for _ in range(100)]
    assert 40 < sum(one.column is None and one.row is None for one in open_usual) < 95
    assert 40 < sum(one.size is None for one in open_usual) < 95
    assert 5 < sum(one.colour is None for one in open_usual) < 40
    for asked in (leave_open(of_card(odd), rng, 0.1) for _ in range(100)):
        assert (asked.column, asked.row, asked.size) == ("left", "top", "small")
