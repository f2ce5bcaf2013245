"""The pictures that the small model learns: flat marketing cards of one object and a headline, in two colours.

Everything lies on a grid of cells, which are whole tokens of the model at all sizes that it learns: a pattern looks the
same to the model wherever it stands. So a larger card has more room around its object, not a larger object.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.words import COLOURS, COLUMNS, ROWS

Pixels = NDArray[np.uint8]
Mask = NDArray[np.float32]

TOKEN: Final = 16  #: pixels of one token of the model
_LETTER_CELLS: Final = 2
_OBJECT_CELLS: Final = {"large": 4, "small": 2}
_FINE: Final = 8  # masks are drawn this many times larger and reduced
_FONT_SIZE: Final = 400
_STROKE: Final = 22  # makes Pillow's own font bold


@dataclass(frozen=True, slots=True)
class Card:
    """One picture: ``column`` and ``row`` place the object in the room that the headline leaves."""

    object: str
    colour: str
    background: str
    column: str
    row: str
    size: str
    words: tuple[str, ...] = ()


def draw(card: Card, width: int, height: int) -> Pixels:
    """The card as RGB, shape (height, width, 3)."""
    mask = coverage(card, width, height)[..., None]
    front, back = (np.array(COLOURS[name], np.float32) for name in (card.colour, card.background))
    return np.rint(back + mask * (front - back)).astype(np.uint8)


def coverage(card: Card, width: int, height: int) -> Mask:
    """How much of each pixel the object and the headline cover, 0 to 1, shape (height, width)."""
    return np.maximum(object_coverage(card, width, height), headline_coverage(card, width, height))


def object_coverage(card: Card, width: int, height: int) -> Mask:
    """The object's part of ``coverage``."""
    page = np.zeros((height, width), np.float32)
    left, top, side = object_box(card, width, height)
    _stamp(page, object_mask(card.object, side), left, top)
    return page


def headline_coverage(card: Card, width: int, height: int) -> Mask:
    """The headline's part of ``coverage``."""
    page = np.zeros((height, width), np.float32)
    letter = _LETTER_CELLS * cell_size(width, height)
    for word, row in zip(card.words, bands(card, height, letter), strict=True):
        start = _snap((width - letter * len(word)) / 2)
        for number, character in enumerate(word):
            _stamp(page, letter_mask(character, letter), start + number * letter, row)
    return page


def cell_size(width: int, height: int) -> int:
    """Pixels of a grid cell: one token from a short side of 128 on, half of one below."""
    return TOKEN if min(width, height) >= 128 else TOKEN // 2


def object_box(card: Card, width: int, height: int) -> tuple[int, int, int]:
    """Left, top and side of the object's square, in pixels."""
    cell = cell_size(width, height)
    side = _OBJECT_CELLS[card.size] * cell
    band = _LETTER_CELLS * cell
    taken = bands(card, height, band)
    first = band if 0 in taken else 0
    last = height - band if any(taken) else height
    left = _place(COLUMNS.index(card.column), 0, width, side, cell)
    return left, _place(ROWS.index(card.row), first, last, side, cell), side


def bands(card: Card, height: int, band: int) -> tuple[int, ...]:
    """Where each word of the headline begins: below the object, or above it when the object is at the bottom."""
    below = height - band
    if len(card.words) > 1:
        return (0, below)
    return ((0,) if card.row == "bottom" else (below,))[: len(card.words)]


def _place(which: int, first: int, last: int, side: int, cell: int) -> int:
    room = last - first - side
    margin = cell if room >= 6 * cell else 0
    return _snap((first + margin, first + room / 2, last - margin - side)[which])


def _snap(pixel: float) -> int:
    return int(pixel // TOKEN) * TOKEN


def _stamp(page: Mask, mask: Mask, left: int, top: int) -> None:
    height, width = page.shape
    x, y = max(0, left), max(0, top)
    part = mask[y - top : height - top, x - left : width - left]
    page[y : y + part.shape[0], x : x + part.shape[1]] = np.maximum(
        page[y : y + part.shape[0], x : x + part.shape[1]], part
    )


@cache
def letter_mask(character: str, side: int) -> Mask:
    """A bold letter that fills its cell."""
    font = ImageFont.load_default(size=_FONT_SIZE)
    sheet = Image.new("L", (2 * _FONT_SIZE, 2 * _FONT_SIZE))
    ImageDraw.Draw(sheet).text((100, 100), character, fill=255, font=font, stroke_width=_STROKE)
    glyph = sheet.crop(sheet.getbbox())
    room, wide = round(side * 0.88), round(side * 0.84)
    width = min(wide, round(room * glyph.width / glyph.height * 1.15))
    cell = Image.new("L", (side, side))
    cell.paste(glyph.resize((width, room), Image.Resampling.BOX), ((side - width) // 2, (side - room) // 2))
    return _to_mask(cell)


@cache
def object_mask(name: str, side: int) -> Mask:
    """The silhouette of an object that fills its square."""
    fine = side * _FINE
    sheet = Image.new("L", (fine, fine))
    pen = _Pen(ImageDraw.Draw(sheet), fine / 100)
    _DRAWINGS[name](pen)
    return _to_mask(sheet.resize((side, side), Image.Resampling.BOX))


def _to_mask(image: Image.Image) -> Mask:
    return np.asarray(image, np.float32) / np.float32(255)


class _Pen:
    """Draws in percent of the square."""

    def __init__(self, draw: ImageDraw.ImageDraw, scale: float) -> None:
        self._draw = draw
        self._scale = scale

    def polygon(self, *points: tuple[float, float], fill: int = 255) -> None:
        self._draw.polygon([(x * self._scale, y * self._scale) for x, y in points], fill=fill)

    def ellipse(self, left: float, top: float, right: float, bottom: float, fill: int = 255) -> None:
        self._draw.ellipse([side * self._scale for side in (left, top, right, bottom)], fill=fill)

    def box(self, left: float, top: float, right: float, bottom: float, radius: float = 0, fill: int = 255) -> None:
        sides = [side * self._scale for side in (left, top, right, bottom)]
        self._draw.rounded_rectangle(sides, radius * self._scale, fill=fill)


def _mug(pen: _Pen) -> None:
    pen.ellipse(54, 26, 97, 74)
    pen.ellipse(65, 38, 86, 62, fill=0)
    pen.box(8, 12, 72, 90, radius=9)


def _bottle(pen: _Pen) -> None:
    pen.box(39, 3, 61, 14, radius=2)
    pen.box(42, 12, 58, 40)
    pen.box(27, 34, 73, 97, radius=12)
    pen.box(27, 56, 73, 78, fill=0)
    pen.box(33, 60, 67, 74)


def _shoe(pen: _Pen) -> None:
    pen.polygon((5, 24), (36, 24), (42, 40), (60, 52), (84, 58), (96, 70), (96, 76), (5, 76))
    pen.box(4, 80, 97, 90, radius=4)


def _shirt(pen: _Pen) -> None:
    pen.polygon((30, 8), (70, 8), (98, 30), (86, 50), (74, 42), (74, 94), (26, 94), (26, 42), (14, 50), (2, 30))
    pen.ellipse(37, -6, 63, 22, fill=0)


def _bag(pen: _Pen) -> None:
    pen.ellipse(28, 4, 72, 64)
    pen.ellipse(38, 14, 62, 64, fill=0)
    pen.polygon((12, 36), (88, 36), (96, 96), (4, 96))


def _gift(pen: _Pen) -> None:
    pen.ellipse(20, 4, 50, 28)
    pen.ellipse(50, 4, 80, 28)
    pen.box(4, 26, 96, 46)
    pen.box(10, 51, 90, 96)
    pen.box(44, 26, 56, 96, fill=0)


def _phone(pen: _Pen) -> None:
    pen.box(24, 2, 76, 98, radius=10)
    pen.box(32, 14, 68, 80, fill=0)
    pen.ellipse(45, 84, 55, 94, fill=0)


def _house(pen: _Pen) -> None:
    pen.polygon((50, 4), (98, 50), (2, 50))
    pen.box(14, 48, 86, 96)
    pen.box(40, 64, 60, 97, fill=0)


def _car(pen: _Pen) -> None:
    pen.polygon((26, 24), (68, 24), (82, 48), (12, 48))
    pen.box(2, 46, 98, 74, radius=8)
    pen.box(34, 31, 46, 46, fill=0)
    pen.box(52, 31, 64, 46, fill=0)
    for centre in (25, 75):
        pen.ellipse(centre - 16, 58, centre + 16, 90, fill=0)
        pen.ellipse(centre - 12, 62, centre + 12, 86)


def _tree(pen: _Pen) -> None:
    pen.polygon((50, 2), (76, 36), (24, 36))
    pen.polygon((50, 18), (84, 58), (16, 58))
    pen.polygon((50, 38), (94, 82), (6, 82))
    pen.box(42, 80, 58, 98)


def _star(pen: _Pen) -> None:
    angles = [np.pi * (number / 5 - 0.5) for number in range(10)]
    radii = [52 if number % 2 == 0 else 21 for number in range(10)]
    points = [(50 + r * np.cos(a), 54 + r * np.sin(a)) for r, a in zip(radii, angles, strict=True)]
    pen.polygon(*((float(x), float(y)) for x, y in points))


def _heart(pen: _Pen) -> None:
    pen.ellipse(3, 8, 53, 58)
    pen.ellipse(47, 8, 97, 58)
    pen.polygon((8.5, 48), (50, 30), (91.5, 48), (50, 96))


def _circle(pen: _Pen) -> None:
    pen.ellipse(4, 4, 96, 96)


def _triangle(pen: _Pen) -> None:
    pen.polygon((50, 6), (98, 94), (2, 94))


_DRAWINGS: Final = {
    "mug": _mug,
    "bottle": _bottle,
    "shoe": _shoe,
    "shirt": _shirt,
    "bag": _bag,
    "gift": _gift,
    "phone": _phone,
    "house": _house,
    "car": _car,
    "tree": _tree,
    "star": _star,
    "heart": _heart,
    "circle": _circle,
    "triangle": _triangle,
}
