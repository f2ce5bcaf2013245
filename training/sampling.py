"""Which cards are shown in training and which are held out."""

from __future__ import annotations

import zlib
from typing import Final

import numpy as np

from training.cards import Card
from training.words import COLOURS, COLUMNS, HEADLINES, OBJECTS, ROWS, SIZES

_HELD_OUT: Final = 10  # one card in so many is never trained on


def random_card(rng: np.random.Generator) -> Card:
    """Any card: two in five without a headline, two with one word, one with two."""
    colour, background = rng.choice(list(COLOURS), 2, replace=False)
    number = int(rng.choice(3, p=(0.4, 0.4, 0.2)))
    return Card(
        object=str(rng.choice(list(OBJECTS))),
        colour=str(colour),
        background=str(background),
        column=str(rng.choice(COLUMNS)),
        # Between two words a large object has no room to move up or down.
        row=str(rng.choice(ROWS)) if number < 2 else "centre",
        size=str(rng.choice(list(SIZES))),
        words=tuple(str(word) for word in rng.choice(HEADLINES, number, replace=False)),
    )


def is_held_out(card: Card) -> bool:
    """Whether this combination belongs to the test; the same on every machine."""
    return zlib.crc32(repr(card).encode()) % _HELD_OUT == 0


def training_card(rng: np.random.Generator) -> Card:
    """A card that may be trained on."""
    while is_held_out(card := random_card(rng)):
        pass
    return card


def held_out_card(rng: np.random.Generator) -> Card:
    """A card that is only ever tested."""
    while not is_held_out(card := random_card(rng)):
        pass
    return card
