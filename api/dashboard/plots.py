"""Plots as SVG that the server draws: no script, crisp on any screen, coloured by the page's style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 720.0
FLOOR: Final = 136.0  #: where the bars stand; below are the words
CEILING: Final = 14.0
GAP: Final = 0.25  #: of a bar's place
SEEN: Final = 0.005  #: seconds; less is told as 0.00 s


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar in the units of the plot; ``title`` is what is said of it."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A line across the plot, and its word."""

    y: float
    word: str


@dataclass(frozen=True, slots=True)
class Plot:
    """What a template needs to draw it."""

    bars: list[Bar]
    ticks: list[Tick]
    words: list[tuple[float, str]]  #: along the floor, with their places
    summary: str


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole: where it begins and how long it is, of 100."""

    name: str
    seconds: float
    x: float
    width: float


def bars(values: Sequence[float | None], titles: Sequence[str], words: Sequence[str], unit: str, summary: str) -> Plot:
    """A bar for each value; ``words`` are spread along the floor, the first at the left end."""
    top = round_up(max([value for value in values if value is not None], default=0.0))
    place = WIDTH / max(1, len(values))
    scale = (FLOOR - CEILING) / top
    drawn = [
        Bar(
            x=round(index * place + place * GAP / 2, 2),
            y=round(FLOOR - (value or 0) * scale, 2),
            width=round(place * (1 - GAP), 2),
            height=round((value or 0) * scale, 2),
            title=title,
        )
        for index, (value, title) in enumerate(zip(values, titles, strict=True))
    ]
    ticks = [
        Tick(round(FLOOR - top * part * scale, 2), f"{top * part:g}{unit}")
        for part in (0.5, 1.0)
        if top * part >= 0.01  # noqa: PLR2004
    ]
    step = WIDTH / max(1, len(words) - 1)
    return Plot(drawn, ticks, [(round(index * step, 1), word) for index, word in enumerate(words)], summary)


def round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50 …; what a scale ends with."""
    if value <= 0:
        return 1.0
    size = 1.0
    while size > value:
        size /= 10
    while size * 10 < value:
        size *= 10
    return next(size * factor for factor in (1, 2, 5, 10) if size * factor >= value)


def shares(parts: Sequence[tuple[str, float]]) -> list[Share]:
    """Spans of time as parts of their sum, one behind the other; those that cannot be seen are left out."""
    total = sum(seconds for _, seconds in parts)
    found: list[Share] = []
    begin = 0.0
    for name, seconds in parts:
        if seconds >= SEEN:
            width = 100 * seconds / total
            found.append(Share(name, seconds, round(begin, 3), round(width, 3)))
            begin += width
    return found
