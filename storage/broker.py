"""What the farm asks a broker besides sending: whether it answers, and how many tickets it holds."""

from __future__ import annotations

from typing import Final, Protocol

from amqp.exceptions import AMQPError, MessageNacked, NotFound
from kombu import Connection
from kombu.exceptions import KombuError
from redis import Redis
from redis.exceptions import RedisError

from fluxfarm.errors import BrokerUnavailable

AMQP: Final = ("amqp://", "amqps://")
#: what either broker ends a call with; of RabbitMQ also a refusal, as of a queue of another kind or by its policies
FAULTS: Final = (KombuError, AMQPError, MessageNacked, RedisError, OSError)
SILENT: Final = "The broker does not answer."


def patience(seconds: float) -> dict[str, float]:
    """The options of a connection to RabbitMQ that waits so long for one answer, and else for ever."""
    return dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), seconds)


class Broker(Protocol):
    """Each call raises ``BrokerUnavailable`` when the broker does not answer; none hangs."""

    def depth(self, queue: str) -> int:
        """Tickets that it holds."""

    def check(self) -> None:
        """Whether it answers."""

    def close(self) -> None:
        """Give the connections back."""


def open_broker(url: str, timeout: float) -> Broker:
    """The broker at this URL; nothing is connected yet. ``timeout`` is seconds for one exchange."""
    return RabbitBroker(url, timeout) if url.startswith(AMQP) else RedisBroker(url, timeout)


class RedisBroker:
    """Redis or Valkey: a queue is a list."""

    def __init__(self, url: str, timeout: float) -> None:
        self._redis = Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)

    def depth(self, queue: str) -> int:
        """Tickets that it holds."""
        try:
            found = self._redis.llen(queue)
        except FAULTS as error:
            raise BrokerUnavailable(SILENT, retry_after=2.0) from error
        assert isinstance(found, int)
        return found

    def check(self) -> None:
        """Raise BrokerUnavailable unless it answers."""
        try:
            self._redis.ping()
        except FAULTS as error:
            raise BrokerUnavailable(SILENT, retry_after=2.0) from error

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()


class RabbitBroker:
    """RabbitMQ, asked on a fresh connection each time: once in some seconds, and a kept one would need a heartbeat.

    Tickets that a worker has taken and not begun are not counted, so that they may be sent again; that does no harm.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout

    def depth(self, queue: str) -> int:
        """Tickets that it holds; none in a queue that nobody has sent to yet."""
        try:
            with self._connected() as connection, connection.channel() as channel:
                return int(channel.queue_declare(queue, passive=True).message_count)
        except NotFound:
            return 0
        except FAULTS as error:
            raise BrokerUnavailable(SILENT, retry_after=2.0) from error

    def check(self) -> None:
        """Raise BrokerUnavailable unless it answers."""
        try:
            with self._connected():
                return
        except FAULTS as error:
            raise BrokerUnavailable(SILENT, retry_after=2.0) from error

    def _connected(self) -> Connection:
        options = patience(self._timeout)
        connection = Connection(self._url, connect_timeout=self._timeout, transport_options=options)
        connection.ensure_connection(max_retries=0)  # ``connect`` tries twice, two seconds apart
        return connection

    def close(self) -> None:
        """Nothing is held."""
