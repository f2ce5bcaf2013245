"""The one engine of a process and the one way to a transaction."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg.abc import RV, PQGen
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from fluxfarm.errors import DatabaseUnavailable
from fluxfarm.settings import Settings

__all__ = [
    "CONNECT_TIMEOUT",
    "NO_SESSION",
    "Database",
    "Session",
    "connect",
    "libpq_url",
]  # Session: for annotations elsewhere

CONNECT_TIMEOUT: Final = 3  #: seconds to reach the server
POOL_TIMEOUT: Final = 2.0  #: seconds to get a connection from the pool
STATEMENT_TIMEOUT: Final = 30_000  #: milliseconds after which the server gives a statement up
REST: Final = 1.0  #: seconds after which a pooled connection is asked whether it still lives
PING: Final = 1.0  #: seconds that it may take to answer
SILENCE: Final = STATEMENT_TIMEOUT / 1000 + 5  #: seconds after which a server that said nothing counts as gone
ANSWER: Final = 4.0  #: the same for a statement that stands alone: a caller waits for it, and is told within 5 s
#: what the kernel does about a server that went away without a word, also while nothing is sent; 9 seconds in all
KEEPALIVES: Final[dict[str, Any]] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,
}
LOCK_TIMEOUT: Final = 3_000  #: milliseconds that a statement waits for a lock; longer, and callers would hang
#: of a connection to the server
ARGUMENTS: Final[dict[str, Any]] = {
    "connect_timeout": CONNECT_TIMEOUT,
    "options": f"-c timezone=UTC -c statement_timeout={STATEMENT_TIMEOUT} -c lock_timeout={LOCK_TIMEOUT}",
    **KEEPALIVES,
}
RETRY_AFTER: Final = 2.0  #: seconds that a caller is told to wait
UNCHANGED: Final = "The database does not answer; nothing was changed by this call."
UNKNOWN: Final = (
    "The database did not answer; whether this call was carried out is not known. "
    "Repeat it with the same Idempotency-Key."
)


def libpq_url(url: SecretStr) -> str:
    """The URL as libpq takes it (``postgresql://``), whatever driver it names."""
    scheme, _, rest = url.get_secret_value().partition("://")
    if not scheme.startswith("postgres") or not rest:
        raise DatabaseUnavailable("DATABASE_URL must look like postgresql://user:password@host/name.")
    return f"postgresql://{rest}"


def _note_rest(connection: _Connection | None, record: ConnectionPoolEntry) -> None:
    record.info["rested_at"] = time.monotonic()
    if connection is not None:  # it broke
        connection.patience = SILENCE


def _look_after_rest(connection: psycopg.Connection, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Ask a connection that has rested whether it lives; asking every time would be a third of a poll's round trips."""
    if time.monotonic() - record.info.get("rested_at", time.monotonic()) < REST:
        return
    try:
        answers = _answers(connection)
    except psycopg.Error as error:
        raise DisconnectionError from error
    if not answers:
        raise DisconnectionError


def _answers(connection: psycopg.Connection) -> bool:
    """Send an empty query and wait ``PING`` seconds: for a server that fell silent the driver would wait for ever."""
    connection.pgconn.send_query(b"")
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    if not poll.poll(1000 * PING):
        return False
    statuses = [result.status for result in iter(connection.pgconn.get_result, None)]
    return statuses == [psycopg.pq.ExecStatus.EMPTY_QUERY]


class _Connection(psycopg.Connection[Any]):
    """Gives up a server that does not answer at all, where the driver would wait for ever."""

    patience: float = SILENCE  #: seconds

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        try:
            return super().wait(gen, interval, timeout or self.patience)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:  # its answer is still to come
                self.pgconn.finish()
            raise


def _connect(_dialect: object, _record: object, arguments: list[Any], parameters: dict[str, Any]) -> _Connection:
    return _Connection.connect(*arguments, **parameters)


@contextmanager
def _translated(silent: str) -> Iterator[None]:
    """``silent`` is what a caller is told of a server that does not answer."""
    try:
        yield
    except PoolTimeout as error:
        message = "Every database connection is in use; try again in a moment."
        raise DatabaseUnavailable(message, retry_after=RETRY_AFTER) from error
    except (OperationalError, DBAPIError) as error:
        if isinstance(error, OperationalError) or error.connection_invalidated:
            raise DatabaseUnavailable(silent, retry_after=RETRY_AFTER, may_be_done=silent == UNKNOWN) from error
        raise


#: stands for a session where nothing is asked; whoever asks it after all gets an error
NO_SESSION: Final = Session()


class Database:
    """PostgreSQL behind a pool; made once when a process starts."""

    def __init__(self, url: SecretStr, *, pool_size: int = 10) -> None:
        """``pool_size`` should be no smaller than the threads that open transactions at once."""
        self.url = url
        self.engine: Engine = create_engine(
            make_url(libpq_url(url)).set(drivername="postgresql+psycopg"),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT,
            hide_parameters=True,  # a prompt must not get into a log by way of an exception
            connect_args=ARGUMENTS,
        )

        self._alone: Engine = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        event.listen(self.engine, "do_connect", _connect)
        event.listen(self.engine, "checkin", _note_rest)
        event.listen(self.engine, "checkout", _look_after_rest)

    @classmethod
    def from_settings(cls, settings: Settings, *, pool_size: int | None = None) -> Database:
        """The farm's database; the pool is as large as the API's threads unless told otherwise."""
        return cls(settings.database_url, pool_size=pool_size or settings.api_threads)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One unit of work: commits at the end, rolls back on any exception.

        Raises:
            DatabaseUnavailable: the server cannot be reached, went away, or the pool is exhausted. The message says
                whether nothing was changed; of a commit without an answer nobody knows.
        """
        with (
            _translated(UNKNOWN),
            Session(self.engine, expire_on_commit=False) as session,
            session.begin(),
            _translated(UNCHANGED),
        ):
            yield session

    @contextmanager
    def statements(self) -> Iterator[Session]:
        """For statements that each stand alone and commit by themselves: one round trip, where a transaction has three.

        Raises:
            DatabaseUnavailable: as above; of a statement without an answer nobody knows, either.
        """
        with Session(self._alone, expire_on_commit=False) as session:
            with _translated(UNCHANGED):
                connection = session.connection().connection.driver_connection
            assert isinstance(connection, _Connection)
            connection.patience = ANSWER
            with _translated(UNKNOWN):
                yield session

    def check(self) -> None:
        """Raise DatabaseUnavailable unless the server answers."""
        with self.transaction() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        """Give every connection back to the server."""
        self.engine.dispose()


def connect(url: SecretStr) -> psycopg.Connection:
    """A plain connection outside the pool, for LISTEN."""
    return psycopg.connect(libpq_url(url), autocommit=True, connect_timeout=CONNECT_TIMEOUT, **KEEPALIVES)
