"""Cards that are made from one or two others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from training.captions import Asked
from training.cards import Card
from training.words import COLOURS


def edit(rng: np.random.Generator, one: Card, two: Card | None) -> tuple[Card, Asked]:
    """The card that one or two references should give, and what is asked.

    With two references, the card of the first takes the colours of the second; with one, it takes a colour that is
    asked for, a background that is asked for, or both.
    """
    if two is not None:
        new = replace(one, colour=two.colour, background=two.background)
        return new, Asked(first=None, second=None, edit="colours")
    which = rng.integers(3)
    taken = {one.colour, one.background}
    colour, back = (str(name) for name in rng.choice([name for name in COLOURS if name not in taken], 2, replace=False))
    said = Asked(
        colour=colour if which != 0 else None,
        background=back if which != 1 else None,
        first=None,
        second=None,
        edit="object",
    )
    new = replace(one, colour=said.colour or one.colour, background=said.background or one.background)
    return new, said
