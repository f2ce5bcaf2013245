"""The invisible mark: seen by nobody, found after what happens to pictures, and only with the farm's own key."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from fluxfarm.settings import Settings
from storage.watermark import FOUND, Watermark, open_watermark
from workers.encoding import CODECS, encode

OURS = Watermark([b"k" * 32])
SIDE = 320


def scene(side: int = SIDE, seed: int = 1) -> Image.Image:
    """Soft blotches with a grain, as a photograph has them."""
    rng = np.random.default_rng(seed)
    blotches = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 4, (side, side, 3))
    return Image.fromarray(np.clip(np.asarray(blotches) + grain, 0, 255).astype(np.uint8))


def card(side: int = SIDE) -> Image.Image:
    """A flat product card."""
    picture = Image.new("RGB", (side, side), (240, 236, 225))
    picture.paste((196, 60, 52), (side // 4, side // 4, side // 2, side * 3 // 4))
    return picture


def saved(image: Image.Image, name: str, quality: int) -> Image.Image:
    out = io.BytesIO()
    image.save(out, name, quality=quality)
    return Image.open(out).convert("RGB")


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "nothing": lambda image: image,
    "jpeg 60": lambda image: saved(image, "JPEG", 60),
    "a cut-out": lambda image: image.crop((77, 41, 277, 301)),
    "half the size": lambda image: image.resize((SIDE // 2, SIDE // 2), Image.Resampling.LANCZOS),
    "three quarters": lambda image: image.resize((SIDE * 3 // 4, SIDE * 3 // 4), Image.Resampling.BICUBIC),
    "twice the size": lambda image: image.resize((2 * SIDE, 2 * SIDE), Image.Resampling.BICUBIC),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("make", [scene, card])
def test_the_mark_outlasts(make: Callable[[], Image.Image], change: str) -> None:
    assert OURS.score(CHANGES[change](OURS.mark(make()))) >= FOUND
    assert OURS.score(CHANGES[change](make())) < FOUND


@pytest.mark.parametrize("output_format", CODECS)
def test_it_is_in_every_format_as_the_worker_writes_it(output_format: str) -> None:
    write = partial(encode, scene(), output_format=output_format, quality=75, width=SIDE, height=SIDE)
    made, plain = write(mark=OURS.mark), write()
    assert OURS.score(Image.open(io.BytesIO(made.body)).convert("RGB")) >= FOUND
    assert OURS.score(Image.open(io.BytesIO(plain.body)).convert("RGB")) < FOUND


@pytest.mark.parametrize("make", [scene, card])
def test_nobody_sees_it(make: Callable[[], Image.Image]) -> None:
    before, after = make(), OURS.mark(make())
    error = np.square(np.asarray(ImageChops.difference(before, after), np.float64)).mean()
    assert 10 * np.log10(255**2 / error) > 40
    assert after.size == before.size
    assert after.mode == "RGB"


def test_another_farm_does_not_find_it_and_an_old_key_still_does() -> None:
    marked = OURS.mark(scene())
    assert Watermark([b"x" * 32]).score(marked) < FOUND
    assert Watermark([b"x" * 32, b"k" * 32]).score(marked) >= FOUND


def test_no_unmarked_picture_is_taken_for_a_marked_one() -> None:
    plain = [scene(128, seed) for seed in range(8)] + [card(128), Image.new("RGB", (64, 64)), scene(64)]
    scores = [Watermark([bytes([key]) * 32]).score(picture) for key in range(6) for picture in plain]
    assert max(scores) < FOUND


def test_a_picture_smaller_than_the_tile_can_carry_it_too() -> None:
    assert OURS.score(OURS.mark(scene(64))) >= FOUND


def test_it_is_off_unless_asked_for_and_the_same_in_every_process(tmp_path: Path) -> None:
    assert open_watermark(Settings()) is None
    settings = Settings().model_copy(update={"watermark": True, "data_dir": tmp_path})
    one, other = open_watermark(settings), open_watermark(settings)
    assert one is not None
    assert other is not None
    assert other.score(one.mark(scene())) >= FOUND
