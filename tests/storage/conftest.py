from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr

from tests.faults.wires import Wire, wire_to_socket


@pytest.fixture
def wire(postgres_url: str) -> Iterator[Wire]:
    """A way to the database that can fall silent."""
    folder = parse_qs(urlsplit(postgres_url).query)["host"][0]
    with wire_to_socket(f"{folder}/.s.PGSQL.5432") as wire:
        yield wire


@pytest.fixture
def over_wire(wire: Wire) -> SecretStr:
    """The URL of a database behind it."""
    return SecretStr(f"postgresql://postgres@127.0.0.1:{wire.port}/postgres")
