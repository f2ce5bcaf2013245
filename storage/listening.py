"""Notifications of Postgres, so that nobody has to ask again and again whether a job has changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import psycopg
from psycopg import sql
from pydantic import SecretStr

from fluxfarm.errors import DatabaseUnavailable
from storage.database import CONNECT_TIMEOUT, KEEPALIVES, connect, libpq_url


@dataclass(frozen=True, slots=True)
class Notice:
    """A channel and what was said on it: a job's uuid."""

    channel: str
    payload: str


def listen(
    url: SecretStr, channels: tuple[str, ...], *, pause: float, presence: int | None = None
) -> Iterator[Notice | None]:
    """Notices as they come, and None after each ``pause`` seconds of silence.

    ``presence`` is the key of a shared advisory lock that is held as long as the connection lives.

    Raises:
        DatabaseUnavailable: the connection broke; the caller connects again and looks at what it may have missed.
    """
    try:
        with connect(url) as connection:
            for channel in channels:
                connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            if presence is not None:
                connection.execute("SELECT pg_advisory_lock_shared(%s)", (presence,))
            yield None
            while True:
                for notice in connection.notifies(timeout=pause, stop_after=1):
                    yield Notice(notice.channel, notice.payload)
                yield None
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable("The connection that waits for notifications broke.") from error


async def listen_async(url: SecretStr, channels: tuple[str, ...]) -> AsyncIterator[Notice | None]:
    """None once the channels are open, then notices as they come, on the event loop.

    Raises:
        DatabaseUnavailable: the connection broke.
    """
    try:
        connection = await psycopg.AsyncConnection.connect(
            libpq_url(url), autocommit=True, connect_timeout=CONNECT_TIMEOUT, **KEEPALIVES
        )
        async with connection:
            for channel in channels:
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            yield None
            async for notice in connection.notifies():
                yield Notice(notice.channel, notice.payload)
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable("The connection that waits for notifications broke.") from error
