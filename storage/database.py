"""The one engine of a process and the one way to a transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from fluxfarm.errors import DatabaseUnavailable
from fluxfarm.settings import Settings

CONNECT_TIMEOUT: Final = 3  #: seconds to reach the server
POOL_TIMEOUT: Final = 2.0  #: seconds to get a connection from the pool
STATEMENT_TIMEOUT: Final = 30_000  #: milliseconds after which the server gives a statement up
RETRY_AFTER: Final = 2.0  #: seconds that a caller is told to wait


def libpq_url(url: SecretStr) -> str:
    """The URL as libpq takes it (``postgresql://``), whatever driver it names."""
    scheme, _, rest = url.get_secret_value().partition("://")
    if not scheme.startswith("postgres") or not rest:
        raise DatabaseUnavailable("DATABASE_URL must look like postgresql://user:password@host/name.")
    return f"postgresql://{rest}"


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
            pool_pre_ping=True,
            hide_parameters=True,  # a prompt must not get into a log by way of an exception
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT,
                "options": f"-c timezone=UTC -c statement_timeout={STATEMENT_TIMEOUT}",
                "keepalives_idle": 5,
                "keepalives_interval": 2,
                "keepalives_count": 2,
                "tcp_user_timeout": 10_000,
            },
        )

    @classmethod
    def from_settings(cls, settings: Settings, *, pool_size: int | None = None) -> Database:
        """The farm's database; the pool is as large as the API's threads unless told otherwise."""
        return cls(settings.database_url, pool_size=pool_size or settings.api_threads)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One unit of work: commits at the end, rolls back on any exception.

        Raises:
            DatabaseUnavailable: the server cannot be reached, went away, or the pool is exhausted.
        """
        try:
            with Session(self.engine, expire_on_commit=False) as session, session.begin():
                yield session
        except PoolTimeout as error:
            message = "Every database connection is in use; try again in a moment."
            raise DatabaseUnavailable(message, retry_after=RETRY_AFTER) from error
        except (OperationalError, DBAPIError) as error:
            if isinstance(error, OperationalError) or error.connection_invalidated:
                message = "The database does not answer; nothing was changed by this call."
                raise DatabaseUnavailable(message, retry_after=RETRY_AFTER) from error
            raise

    def check(self) -> None:
        """Raise DatabaseUnavailable unless the server answers."""
        with self.transaction() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        """Give every connection back to the server."""
        self.engine.dispose()


def connect(url: SecretStr) -> psycopg.Connection:
    """A plain connection outside the pool, for LISTEN."""
    return psycopg.connect(libpq_url(url), autocommit=True, connect_timeout=CONNECT_TIMEOUT)
