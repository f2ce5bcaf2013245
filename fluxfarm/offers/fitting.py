"""Which size to ask a provider for, so that what comes back covers the size that was asked of the farm.

The farm scales the result down and crops it to the exact size. It never enlarges one by more than the rounding to a
provider's grid: a picture that looks larger than it was drawn would be a lie.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from fluxfarm.sizes import Size, SizeLimits, from_ratio, parse_megapixels, parse_ratio

SLACK: Final = 1.03  #: a shape drawn at a tier may be smaller by this factor, as its sides are rounded down
OVER: Final = 1.002  #: by how much a size may miss a whole megapixel and still be drawn as that
STRETCH: Final = 1.15  #: the nearest ratio may be off by this factor; the rest is cropped


@dataclass(frozen=True, slots=True)
class Shape:
    """A size in the words of a provider that knows ratios and tiers only."""

    ratio: str
    area: str
    size: Size


def fit_pixels(asked: Size, limits: SizeLimits, multiple: int) -> Size | None:
    """The size on the provider's grid for ``asked``, in its shape; None: it draws nothing that covers it.

    Sides are rounded up, unless that leaves the provider's limits or begins another megapixel, which would be paid for:
    1365 x 768 is drawn as 1360 x 768, not as 1376 x 768.
    """
    scale = max(1.0, limits.min_side / min(asked.width, asked.height))
    scaled = Size(math.ceil(asked.width * scale), math.ceil(asked.height * scale))
    if not _inside(scaled, limits):
        return None
    widths, heights = _both(scaled.width, multiple), _both(scaled.height, multiple)
    close = [size for size in (Size(w, h) for w in widths for h in heights) if _inside(size, limits)]
    counted = math.ceil(scaled.megapixels / OVER)
    return next((size for size in close if size.megapixels <= counted), next(iter(close), None))


def fit_shape(asked: Size, ratios: tuple[str, ...], areas: tuple[str, ...], multiple: int) -> Shape | None:
    """The nearest ratio at the smallest tier that covers ``asked``; None: too large, or a shape too far from all."""
    wanted = asked.width / asked.height

    def distance(ratio: str) -> float:
        return abs(math.log(parse_ratio(ratio) / wanted))

    ratio = min(ratios, key=distance)
    if distance(ratio) > math.log(STRETCH):
        return None
    for area in areas:
        exact = from_ratio(parse_ratio(ratio), parse_megapixels(area))
        drawn = Size(_down(exact.width, multiple), _down(exact.height, multiple))
        if drawn.width * SLACK >= asked.width and drawn.height * SLACK >= asked.height:
            return Shape(ratio, area, drawn)
    return None


def _inside(size: Size, limits: SizeLimits) -> bool:
    sides_fit = limits.min_side <= min(size.width, size.height) and max(size.width, size.height) <= limits.max_side
    return sides_fit and size.pixels <= limits.max_pixels


def _both(side: int, multiple: int) -> tuple[int, int]:
    return -(-side // multiple) * multiple, _down(side, multiple)


def _down(side: int, multiple: int) -> int:
    return max(multiple, side // multiple * multiple)
