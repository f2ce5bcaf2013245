"""Which denoising steps an ``acceleration`` leaves out: a fixed schedule, so that no picture depends on its neighbours.

A left-out step runs none of the transformer's blocks and takes over what they added in the last computed one. The first
steps, which lay out the picture, and the last, which cleans it, are always computed.
"""

from __future__ import annotations

from typing import Final, Literal

Acceleration = Literal["none", "regular", "high"]

FEWEST_STEPS: Final = 8  #: of a render that can be accelerated; a distilled model's four are all needed
ALWAYS_COMPUTED: Final = 0.25  #: of the steps, from the first on
COMPUTED_OF: Final = {"regular": 2, "high": 3}  #: of the others one of so many is computed


def skipped_steps(steps: int, acceleration: Acceleration) -> frozenset[int]:
    """The steps, counted from 0, that are left out; of 28 steps 10 (``regular``) or 14 (``high``)."""
    every = COMPUTED_OF.get(acceleration)
    if every is None or steps < FEWEST_STEPS:
        return frozenset()
    first = round(steps * ALWAYS_COMPUTED)
    return frozenset(step for step in range(first, steps - 1) if (step - first) % every != every - 1)
