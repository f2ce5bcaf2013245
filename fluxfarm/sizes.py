"""From what a caller asks for (pixels, a ratio, a tier, megapixels) to an exact size in pixels."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from fluxfarm.errors import InvalidSize

MEGAPIXEL: Final = 1024 * 1024  #: pixels; BFL, fal and Replicate all count 1 MP as 1024 x 1024
MAX_AREA: Final = 1000.0  #: megapixels; far beyond any model, and far below what arithmetic breaks on
MULTIPLE: Final = 16  #: the FLUX.2 pipelines floor each side to this (VAE /8, patches of 2)
TIERS: Final = {"0.25": 0.25, "0.5K": 0.25, "0.5": 0.5, "1": 1.0, "1K": 1.0, "2": 2.0, "2K": 4.0, "4": 4.0, "4K": 16.0}

_PIXELS: Final = re.compile(r"(\d{1,5})\s*[xX]\s*(\d{1,5})")
_RATIO: Final = re.compile(r"(\d{1,5}(?:\.\d{1,4})?)\s*[:/]\s*(\d{1,5}(?:\.\d{1,4})?)")


@dataclass(frozen=True, slots=True, order=True)
class Size:
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def pixels(self) -> int:
        """Area."""
        return self.width * self.height

    @property
    def megapixels(self) -> float:
        """Area in units of 1024 x 1024."""
        return self.pixels / MEGAPIXEL

    @property
    def rendered(self) -> Size:
        """The next multiple of 16 on each side: what the pipeline draws before the crop."""
        return Size(_up(self.width), _up(self.height))


def _up(side: int) -> int:
    return -(-side // MULTIPLE) * MULTIPLE


def parse_ratio(text: str) -> float:
    """Width over height of ``16:9`` (also ``16/9``).

    Raises:
        InvalidSize: not two positive numbers with a colon between them.
    """
    found = _RATIO.fullmatch(text.strip())
    if found is None or not float(found[1]) or not float(found[2]):
        raise InvalidSize(f"{text!r} is not an aspect ratio; write it as '16:9'.", param="aspect_ratio")
    return float(found[1]) / float(found[2])


def parse_megapixels(value: str | float) -> float:
    """Megapixels of a tier (``1K``), a number or its text.

    Raises:
        InvalidSize: neither a tier nor a positive number, or more than any model draws.
    """
    text = str(value).strip()
    if text.upper() in TIERS:
        return TIERS[text.upper()]
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= MAX_AREA:
        tiers = ", ".join(TIERS)
        message = f"{text!r} is not a resolution; take one of {tiers} or a number of megapixels up to {MAX_AREA:g}."
        raise InvalidSize(message, param="resolution")
    return number


def from_ratio(ratio: float, megapixels: float = 1.0) -> Size:
    """The size of this shape and area, to the pixel as Lumenfall's table gives it (16:9 at 1K is 1365 x 768)."""
    height = math.floor(math.sqrt(megapixels * MEGAPIXEL / ratio) + 0.5)
    return Size(max(1, math.floor(height * ratio + 0.5)), max(1, height))


def parse_size(text: str, megapixels: float = 1.0) -> Size:
    """Read ``WxH``, or a ratio such as ``16:9`` at the given area.

    Raises:
        InvalidSize: neither of the two.
    """
    pixels = _PIXELS.fullmatch(text.strip())
    if pixels is not None:
        return Size(int(pixels[1]), int(pixels[2]))
    if _RATIO.fullmatch(text.strip()):
        return from_ratio(parse_ratio(text), megapixels)
    message = f"{text!r} is not a size; write pixels ('1024x768'), a ratio ('16:9') or 'auto'."
    raise InvalidSize(message, param="size")


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """What a model can draw: sides in pixels, area in pixels, the longer side over the shorter.

    The shortest side and the shape are those of what is drawn before the crop, so 320x50 is cut out of 320x64.
    """

    min_side: int
    max_side: int
    max_pixels: int
    max_aspect: float = 8.0

    def check(self, size: Size, model: str) -> Size:
        """Give ``size`` back, or say what is wrong with it.

        Raises:
            InvalidSize: a side, the area or the shape is outside the limits.
        """
        fault = self._fault(size)
        if fault is None:
            return size
        raise InvalidSize(f"{model} cannot render {size}: {fault}.", param="size")

    def allows(self, size: Size) -> bool:
        """Whether the model can draw it."""
        return self._fault(size) is None

    def nearest(self, size: Size) -> Size:
        """The same if the model can draw it; else the nearest shape, and of that the nearest area."""
        if self._fault(size) is None:
            return size
        share = max(min(size.width, size.height) / max(size.width, size.height), 1 / self.max_aspect)
        long = min(math.sqrt(min(size.pixels, self.max_pixels) / share), self.max_side)
        side = math.floor(max(long, self.min_side / share) + 0.5)
        while side * (short := max(self.min_side, math.ceil(side * share - 1e-6))) > self.max_pixels:
            side -= 1
        return Size(side, short) if size.width >= size.height else Size(short, side)

    def _fault(self, size: Size) -> str | None:
        long, drawn = max(size.width, size.height), size.rendered
        longer, shorter = max(drawn.width, drawn.height), max(1, min(drawn.width, drawn.height))
        if shorter < self.min_side or long > self.max_side:
            return f"each side must be {self.min_side} to {self.max_side} pixels"
        if size.pixels > self.max_pixels:
            return f"at most {self.max_pixels / MEGAPIXEL:g} megapixels"
        if longer / shorter > self.max_aspect:
            return f"the longer side may be at most {self.max_aspect:g} times the shorter"
        return None
