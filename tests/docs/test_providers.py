"""The providers' page tells what the code does."""

from __future__ import annotations

import re

from tests.conftest import ROOT
from tests.docs.providers_table import PAGE, write
from tests.stubs import STUBS

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_offers() -> None:
    assert write(TEXT) == TEXT, "run python -m tests.docs.providers_table"


def test_every_stub_is_named_and_every_path_exists() -> None:
    assert all(f"`{name}`" in TEXT for name in STUBS if name != "openai")
    for path in re.findall(r"`((?:fluxfarm|workers|tests|docs)/[a-z_/]+(?:\.py)?)`", TEXT):
        assert (ROOT / path).exists(), path
