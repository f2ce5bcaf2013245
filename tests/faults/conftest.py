from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.sites import Site, running


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One farm for the faults of a file: that it is whole again after each is the point."""
    with running(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def site(whole: Site) -> Site:
    whole.mend()
    return whole
