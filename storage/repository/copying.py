"""Many rows at once by COPY: ten times as fast as INSERT, in the caller's own transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy.orm import Session

from fluxfarm.errors import DatabaseUnavailable
from storage.database import UNCHANGED


def copy_rows(session: Session, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Append rows to a table; what a constraint refuses raises ``psycopg.IntegrityError`` and spoils the transaction.

    Raises:
        DatabaseUnavailable: the server went away.
    """
    session.flush()
    connection = session.connection().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    into = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    try:
        with connection.cursor() as cursor, cursor.copy(into) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(UNCHANGED) from error
