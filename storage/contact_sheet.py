"""A contact sheet: every picture small, with its name below; pages of it as PNG or as one PDF."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageFont

COLUMNS: Final = 5
ROWS: Final = 6
PAGE: Final = COLUMNS * ROWS  #: pictures of a page
CELL: Final = 220  #: pixels of a side
GAP: Final = 16
LABEL: Final = 36  #: pixels below a picture
PAPER: Final = (255, 255, 255)
INK: Final = (34, 34, 34)
DPI: Final = 110.0  #: of the PDF: a page is about A4


@dataclass(frozen=True, slots=True)
class Thumb:
    """A picture to show; ``read`` gives its file."""

    name: str
    read: Callable[[], bytes]


def page_count(count: int) -> int:
    """How many pages so many pictures take; one at least."""
    return max(1, -(-count // PAGE))


def draw_page(thumbs: Sequence[Thumb]) -> Image.Image:
    """One page; a file that is no picture any more leaves its place empty."""
    size = (GAP + COLUMNS * (CELL + GAP), GAP + ROWS * (CELL + LABEL + GAP))
    page = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=11)
    for index, thumb in enumerate(thumbs):
        left = GAP + index % COLUMNS * (CELL + GAP)
        top = GAP + index // COLUMNS * (CELL + LABEL + GAP)
        with Image.open(io.BytesIO(thumb.read())) as found:
            small = found.convert("RGB")
        small.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
        page.paste(small, (left + (CELL - small.width) // 2, top + (CELL - small.height) // 2))
        for line, text in enumerate(_lines(thumb.name, font)):
            pen.text((left, top + CELL + 4 + 14 * line), text, fill=INK, font=font)
    return page


def _lines(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Iterator[str]:
    """The name in at most two lines of a cell's width; what does not fit is cut in its middle."""
    first = name
    while font.getlength(first) > CELL:
        first = first[:-1]
    yield first
    rest = name[len(first) :]
    while rest and font.getlength(rest) > CELL:
        rest = "…" + rest[2:]
    if rest:
        yield rest


def as_png(thumbs: Sequence[Thumb]) -> bytes:
    """One page as PNG."""
    out = io.BytesIO()
    draw_page(thumbs).save(out, "PNG")
    return out.getvalue()


def as_pdf(thumbs: Sequence[Thumb], title: str) -> bytes:
    """All pages as a PDF; one page is in memory at a time."""
    out = io.BytesIO()
    for number in range(page_count(len(thumbs))):
        page = draw_page(thumbs[number * PAGE : (number + 1) * PAGE])
        out.seek(0)
        page.save(out, "PDF", append=bool(number), resolution=DPI, title=title)
    return out.getvalue()
