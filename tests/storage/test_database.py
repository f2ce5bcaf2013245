"""A server that says nothing any more: no end, no error, only silence."""

from __future__ import annotations

import time

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from fluxfarm.errors import DatabaseUnavailable
from storage.database import Database, connect
from tests.faults.wires import Wire


def test_no_caller_waits_for_a_silent_database(wire: Wire, over_wire: SecretStr) -> None:
    database = Database(over_wire)
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


def test_of_a_commit_without_an_answer_nobody_knows(over_wire: SecretStr) -> None:
    database = Database(over_wire)
    end = "SELECT pg_terminate_backend(%s, 1000)"

    def fail(*, in_commit: bool) -> None:
        with connect(over_wire) as other, database.transaction() as session:
            other.execute(end, [session.scalar(text("SELECT pg_backend_pid()"))])
            if not in_commit:
                session.execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnavailable, match="nothing was changed"):
        fail(in_commit=False)
    with pytest.raises(DatabaseUnavailable, match="is not known"):
        fail(in_commit=True)
    database.close()


def test_the_kernel_asks_after_a_server_that_listens_in_silence(over_wire: SecretStr) -> None:
    with connect(over_wire) as listening:
        asked = psycopg.conninfo.conninfo_to_dict(listening.info.dsn)
    assert asked["keepalives_idle"] == "5"
