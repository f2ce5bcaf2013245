"""The gate of the simulator: each broken farm is caught, and soon."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.walk import Walk, first_caught

WALKS = 2_000


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_broken_farm_is_caught(mutant: type[Walk]) -> None:
    found = first_caught(mutant, WALKS)
    assert found is not None, f"{mutant.__doc__} Nobody noticed in {WALKS} walks."
    print(f"{mutant.__name__}: caught after {found[0]} walks: {found[1]}")  # noqa: T201
