from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.farms import Running, running


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One farm for all tests of the way of a job; they share its worker, so each waits for its own jobs only."""
    folder: Path = tmp_path_factory.mktemp("farm")
    with running(folder / "data") as started:
        yield started
