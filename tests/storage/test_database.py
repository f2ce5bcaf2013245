"""A server that says nothing any more: no end, no error, only silence."""

from __future__ import annotations

import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from fluxfarm.errors import DatabaseUnavailable
from storage.database import Database, connect
from tests.faults.wires import Wire, wire_to_socket


@pytest.fixture
def wire(postgres_url: str) -> Iterator[Wire]:
    folder = parse_qs(urlsplit(postgres_url).query)["host"][0]
    with wire_to_socket(f"{folder}/.s.PGSQL.5432") as wire:
        yield wire


def over(wire: Wire) -> SecretStr:
    return SecretStr(f"postgresql://postgres@127.0.0.1:{wire.port}/postgres")


def test_no_caller_waits_for_a_silent_database(wire: Wire) -> None:
    database = Database(over(wire))
    with database.statements() as session:
        session.execute(text("SELECT 1"))
    wire.block()  # the connection has not rested, and is not asked first
    for message in ("is not known", "nothing was changed"):  # on that connection, then on a new one
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable, match=message), database.statements() as session:
            session.execute(text("SELECT 1"))
        assert time.monotonic() - began < 5.0
    wire.clear()
    database.check()
    database.close()


def test_of_a_commit_without_an_answer_nobody_knows(wire: Wire) -> None:
    database = Database(over(wire))
    end = "SELECT pg_terminate_backend(%s, 1000)"

    def fail(*, in_commit: bool) -> None:
        with connect(over(wire)) as other, database.transaction() as session:
            other.execute(end, [session.scalar(text("SELECT pg_backend_pid()"))])
            if not in_commit:
                session.execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnavailable, match="nothing was changed"):
        fail(in_commit=False)
    with pytest.raises(DatabaseUnavailable, match="is not known"):
        fail(in_commit=True)
    database.close()


def test_the_kernel_asks_after_a_server_that_listens_in_silence(wire: Wire) -> None:
    with connect(over(wire)) as listening:
        asked = psycopg.conninfo.conninfo_to_dict(listening.info.dsn)
    assert asked["keepalives_idle"] == "5"
