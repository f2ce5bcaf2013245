"""Sizes: Lumenfall's table to the pixel, and what holds for any ratio and area."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxfarm.errors import InvalidSize
from fluxfarm.sizes import MEGAPIXEL, MULTIPLE, Size, SizeLimits, from_ratio, parse_megapixels, parse_ratio, parse_size

LUMENFALL_1K = {
    "4:3": Size(1183, 887),
    "4:5": Size(916, 1145),
    "5:4": Size(1145, 916),
    "1:1": Size(1024, 1024),
    "3:4": Size(887, 1182),
    "2:3": Size(836, 1254),
    "3:2": Size(1254, 836),
    "9:16": Size(768, 1365),
    "16:9": Size(1365, 768),
}
LIMITS = SizeLimits(min_side=64, max_side=4096, max_pixels=4 * MEGAPIXEL)

sides = st.integers(1, 99_999)
ratios = st.floats(1 / 8, 8)
areas = st.floats(0.05, 16)


@pytest.mark.parametrize(("ratio", "size"), LUMENFALL_1K.items())
def test_the_nine_sizes_of_1k_are_lumenfalls(ratio: str, size: Size) -> None:
    assert from_ratio(parse_ratio(ratio), parse_megapixels("1K")) == size
    assert parse_size(ratio) == size
    assert parse_size(str(size)) == size


@given(ratios, areas)
def test_any_ratio_keeps_its_shape_and_its_area_within_a_pixel(ratio: float, megapixels: float) -> None:
    size = from_ratio(ratio, megapixels)
    assert abs(size.width - size.height * ratio) <= 0.5 + 1e-6
    exact = math.sqrt(megapixels * MEGAPIXEL / ratio)
    assert abs(size.height - exact) <= 0.5 + 1e-6


@given(st.floats(1e-9, 1e9), areas)
def test_no_shape_has_a_side_of_zero(ratio: float, megapixels: float) -> None:
    size = from_ratio(ratio, megapixels)
    assert size.width >= 1
    assert size.height >= 1


@given(sides, sides)
def test_pixels_are_read_back_and_drawn_on_the_next_multiple(width: int, height: int) -> None:
    size = Size(width, height)
    assert parse_size(str(size)) == size
    assert parse_size(f" {width} X {height} ") == size
    drawn = size.rendered
    assert drawn.width % MULTIPLE == drawn.height % MULTIPLE == 0
    assert 0 <= drawn.width - width < MULTIPLE
    assert 0 <= drawn.height - height < MULTIPLE
    assert drawn.rendered == drawn


def test_area_is_counted_in_units_of_1024_squared() -> None:
    assert Size(1024, 1024).megapixels == 1
    assert Size(2048, 1024).pixels == 2 * MEGAPIXEL


@pytest.mark.parametrize(
    ("text", "ratio"), [("16:9", 16 / 9), ("16/9", 16 / 9), (" 3 : 2 ", 1.5), ("2.35:1", 2.35), ("1:1", 1)]
)
def test_ratios(text: str, ratio: float) -> None:
    assert parse_ratio(text) == ratio


@pytest.mark.parametrize(
    "text", ["", "16", "0:9", "16:0", "a:b", "-1:2", "1:2:3", "1e3:1", "∞:1", "16\n9", "1:99999999"]
)
def test_what_is_no_ratio(text: str) -> None:
    with pytest.raises(InvalidSize) as caught:
        parse_ratio(text)
    assert caught.value.param == "aspect_ratio"


@pytest.mark.parametrize(
    ("value", "megapixels"),
    [
        ("1K", 1.0),
        ("2k", 4.0),
        ("4K", 16.0),
        ("0.5K", 0.25),
        ("0.25", 0.25),
        ("1", 1.0),
        (1, 1.0),
        (1.5, 1.5),
        ("3", 3.0),
    ],
)
def test_tiers_and_numbers(value: str | float, megapixels: float) -> None:
    assert parse_megapixels(value) == megapixels


@pytest.mark.parametrize(
    "value", ["", "K", "big", "0", "-1", "nan", "inf", "1e999", "1e308", 1e308, 1000.5, math.nan, math.inf, 0, -2.0]
)
def test_what_is_no_area(value: str | float) -> None:
    with pytest.raises(InvalidSize):
        parse_megapixels(value)


@pytest.mark.parametrize(
    "text", ["", "auto", "1024", "1024x", "x1024", "-5x5", "1024x768x3", "999999x10", "10.5x10", "1K"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidSize) as caught:
        parse_size(text)
    assert caught.value.param == "size"


@pytest.mark.parametrize(
    ("size", "word"),
    [
        (Size(48, 64), "64 to 4096"),
        (Size(4097, 600), "64 to 4096"),
        (Size(0, 0), "64 to 4096"),
        (Size(2049, 2048), "4 megapixels"),
        (Size(1025, 128), "8 times"),
        (Size(128, 1025), "8 times"),
    ],
)
def test_limits_say_what_is_wrong(size: Size, word: str) -> None:
    with pytest.raises(InvalidSize, match=word) as caught:
        LIMITS.check(size, "flux")
    assert str(size) in caught.value.message


@pytest.mark.parametrize(
    "size", [Size(64, 64), Size(2048, 2048), Size(1024, 4096), Size(1024, 128), Size(320, 50), Size(90, 728)]
)
def test_the_edges_of_the_limits_are_inside(size: Size) -> None:
    assert LIMITS.check(size, "flux") is size
