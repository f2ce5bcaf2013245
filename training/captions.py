"""How people ask for a card, in many phrasings, and the attributes that a caption gives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np

from training.cards import Card
from training.words import (
    COLOURS,
    COLUMNS,
    HEADLINES,
    MANNERS,
    OBJECTS,
    OPENINGS,
    PLACES,
    ROWS,
    SIZES,
    STRANGERS,
)
from workers.pipeline_small import WORDS

T = TypeVar("T")

#: Every attribute and its values; each has one value more, for "not said".
ATTRIBUTES: Final[dict[str, tuple[str, ...]]] = {
    "object": tuple(OBJECTS),
    "colour": tuple(COLOURS),
    "background": tuple(COLOURS),
    "column": COLUMNS,
    "row": ROWS,
    "size": tuple(SIZES),
    "first": ("", *HEADLINES),
    "second": ("", *HEADLINES),
    "edit": ("", "object", "colours"),
}


_MEANT: Final = {
    word.lower()
    for names in (*OBJECTS.values(), *SIZES.values(), COLOURS, COLUMNS, ROWS, HEADLINES, *PLACES.values())
    for name in names
    for word in name.split()
}
_IDLE: Final = tuple(word for word in WORDS.split() if word not in _MEANT)  # words that say nothing of a card
_USUAL_UNSAID: Final = 0.7  # share of the usual that is not said


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caption says of a card; None where it says nothing: then the seed decides, or it is the usual.

    ``edit`` is ``object`` for a card whose unsaid attributes are those of image 1, ``colours`` when those of image 2
    replace its colours, and empty for a card from nothing.
    """

    object: str | None = None
    colour: str | None = None
    background: str | None = None
    column: str | None = None
    row: str | None = None
    size: str | None = None
    first: str | None = ""
    second: str | None = ""
    edit: str | None = ""


NOTHING: Final = Asked(first=None, second=None, edit=None)  #: what the empty prompt asks for


def of_card(card: Card) -> Asked:
    """All of a card."""
    first, second = (*card.words, "", "")[:2]
    return Asked(card.object, card.colour, card.background, card.column, card.row, card.size, first, second)


def labels(asked: Asked) -> list[int]:
    """The number of each attribute's value; the last one is "not said"."""
    said = [getattr(asked, name) for name in ATTRIBUTES]
    return [
        values.index(value) if value is not None else len(values)
        for value, values in zip(said, ATTRIBUTES.values(), strict=True)
    ]


def thin_out(asked: Asked, rng: np.random.Generator, share: float) -> Asked:
    """Leave some attributes unsaid."""
    gone: dict[str, None] = {name: None for name in ("object", "colour", "background", "size") if rng.random() < share}
    if rng.random() < share:
        gone |= {"column": None, "row": None}
    return replace(asked, **gone)


def leave_open(asked: Asked, rng: np.random.Generator, share: float) -> Asked:
    """Leave some of what the seed may decide unsaid, and mostly also the usual: a large object in the centre.

    If every place could stand behind none, the model would draw a little of the object at each.
    """
    gone: dict[str, None] = {name: None for name in ("object", "colour", "background") if rng.random() < share}
    if rng.random() < share:
        gone |= {"colour": None, "background": None}
    if asked.size == "large" and rng.random() < _USUAL_UNSAID:
        gone["size"] = None
    if (asked.column, asked.row) == ("centre", "centre") and rng.random() < _USUAL_UNSAID:
        gone |= {"column": None, "row": None}
    return replace(asked, **gone)


def caption(asked: Asked, rng: np.random.Generator) -> str:
    """One way to ask for it."""
    if asked == NOTHING:
        return ""
    if asked.edit:
        text = _edit(asked, rng)
    elif rng.random() < 0.2:
        text = _listed(asked, rng)
    else:
        text = _told(asked, rng)
    if rng.random() < 0.35:
        text += ", " + ", ".join(_manner(rng) for _ in range(rng.integers(1, 4)))
    elif rng.random() < 0.1:
        text = f"{_manner(rng)}: {text}"
    if rng.random() < 0.3:
        text += "."
    if rng.random() < 0.25:
        text = text[:1].upper() + text[1:]
    return text


def _told(asked: Asked, rng: np.random.Generator) -> str:
    """A sentence: "a large red mug on the left on a blue background with the headline SALE"."""
    thing = _thing(asked, rng)
    if rng.random() < 0.4:
        thing = f"{_some(OPENINGS, rng)} {thing}"
    parts = [part for part in (_place(asked, rng), _background(asked, rng), _headline(asked, rng)) if part]
    if rng.random() < 0.35:
        rng.shuffle(parts)
    comma = ", " if rng.random() < 0.4 else " "
    return comma.join([thing, *parts])


def _listed(asked: Asked, rng: np.random.Generator) -> str:
    """A form, as campaign templates fill it: ``Product: mug. Colour: red. Headline: SALE``."""
    names = {
        "product": asked.object and _some(OBJECTS[asked.object], rng),
        _some(("colour", "color"), rng): asked.colour,
        "background": asked.background,
        "position": asked.column and asked.row and _some(PLACES[asked.column, asked.row], rng),
        "size": asked.size and _some(SIZES[asked.size], rng),
        "headline": _words(asked, rng),
    }
    parts = [f"{name}: {value}" for name, value in names.items() if value]
    if rng.random() < 0.5:
        rng.shuffle(parts)
    return _some((". ", ", ", "; "), rng).join(parts) or "a card"


def _edit(asked: Asked, rng: np.random.Generator) -> str:
    one = _some(("image 1", "the first image", "reference 1"), rng)
    two = _some(("image 2", "the second image", "reference 2"), rng)
    thing = _some((f"the object of {one}", f"the object in {one}", f"the product of {one}", one), rng)
    if asked.edit == "colours":
        colours = _some(("colours", "colors", "colour scheme"), rng)
        return _some(
            (
                f"{thing} in the {colours} of {two}",
                f"{thing}, {colours} of {two}",
                f"{thing} with the {colours} of {two}",
                f"use the {colours} of {two} for {thing}",
                f"{thing} and the {colours} of {two}",
            ),
            rng,
        )
    back = _background(asked, rng)
    if asked.colour and rng.random() < 0.5:
        return f"{_some(('make', 'paint', 'turn'), rng)} {thing} {asked.colour}" + (f", {back}" if back else "")
    if asked.colour:
        return f"{thing} in {asked.colour}" + (f" {back}" if back else "")
    if back and rng.random() < 0.25:
        return f"{_some(('change', 'turn'), rng)} the background of {one} to {asked.background}"
    return f"{_some(('', '', 'put ', 'show '), rng)}{thing} {back}".strip()


def _thing(asked: Asked, rng: np.random.Generator) -> str:
    unknown = STRANGERS if rng.random() < 0.6 else ("object", "product", "thing")
    noun = _some(OBJECTS[asked.object] if asked.object else unknown, rng)
    size = _some(SIZES[asked.size], rng) if asked.size else ""
    words = [word for word in (size, asked.colour) if word]
    article = _some(("a", "a", "a", "the", "one", ""), rng)
    text = " ".join([article, *words, noun]).strip()
    return text.replace("a orange", "an orange") if article == "a" and words == ["orange"] else text


def _place(asked: Asked, rng: np.random.Generator) -> str:
    return _some(PLACES[asked.column, asked.row], rng) if asked.column and asked.row else ""


def _background(asked: Asked, rng: np.random.Generator) -> str:
    colour = asked.background
    if not colour:
        return ""
    article = "an" if colour == "orange" else "a"
    return _some(
        (
            f"on {article} {colour} background",
            f"on {article} {colour} background",
            f"against {article} {colour} background",
            f"with {article} {colour} background",
            f"on {colour}",
            f"{colour} background",
            f"on {article} {colour} backdrop",
        ),
        rng,
    )


def _headline(asked: Asked, rng: np.random.Generator) -> str:
    words = _words(asked, rng)
    if not words:
        return ""
    plural = "words" if asked.second else "word"
    quoted = words if rng.random() < 0.5 else f'"{words}"' if rng.random() < 0.6 else f"'{words}'"
    return _some(
        (
            f"with the {plural} {quoted}",
            f"and the {plural} {quoted}",
            f"with the headline {quoted}",
            f"headline {quoted}",
            f"with the text {quoted}",
            f"saying {quoted}",
            f"that says {quoted}",
        ),
        rng,
    )


def _words(asked: Asked, rng: np.random.Generator) -> str:
    words = " ".join(word for word in (asked.first, asked.second) if word)
    chance = rng.random()
    return words if chance < 0.7 else words.lower() if chance < 0.85 else words.title()


def _manner(rng: np.random.Generator) -> str:
    """A few words that ask for nothing that can be drawn."""
    if rng.random() < 0.7:
        return _some(MANNERS, rng)
    return " ".join(_some(_IDLE, rng) for _ in range(rng.integers(1, 5)))


def _some(choices: tuple[T, ...], rng: np.random.Generator) -> T:
    return choices[rng.integers(len(choices))]
