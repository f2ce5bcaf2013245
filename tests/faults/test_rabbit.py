"""RabbitMQ in the place of Valkey's queues: the same promises, with quorum queues."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from kombu import Connection
from pydantic import SecretStr

from fluxfarm.errors import BrokerUnavailable
from fluxfarm.settings import Settings
from storage.queue import Queue
from tests.e2e.farms import wait_for
from tests.faults.rabbit import Rabbit
from tests.faults.sites import BACK, Site, running

pytestmark = pytest.mark.xdist_group("faults-rabbit")


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    broker = Rabbit(tmp_path_factory.mktemp("rabbit"))
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, rabbit: Rabbit) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("site"), environment={"FLUXFARM_BROKER_URL": rabbit.url}) as site:
        yield site


@pytest.fixture
def queue(rabbit: Rabbit) -> Iterator[Queue]:
    made = Queue(Settings(broker_url=SecretStr(rabbit.url)))
    yield made
    made.close()


def test_a_ticket_is_a_uuid_in_a_quorum_queue(rabbit: Rabbit, queue: Queue) -> None:
    name, uuid = f"local.{uuid4().hex}", uuid4()
    assert queue.depth(name) == 0, "nobody has sent to it yet"
    assert queue.enqueue(name, uuid)
    queue.check()
    wait_for(lambda: queue.depth(name) == 1)
    with Connection(rabbit.url) as connection, connection.channel() as channel:
        channel.queue_declare(name, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
        message: Any = channel.basic_get(name, no_ack=True)
    assert json.loads(message.body)[0] == [str(uuid)]
    headers = {name: value for name, value in message.headers.items() if name not in ("lang", "origin")}
    assert "prompt" not in json.dumps(headers, default=str)


def test_jobs_are_drawn_and_valkey_holds_no_ticket(site: Site) -> None:
    site.all_succeed([site.accept() for _ in range(20)])
    assert [key for key in site.redis().scan_iter() if "local" in str(key) or "kombu" in str(key)] == []


def test_a_broker_that_restarts_loses_nothing(site: Site, rabbit: Rabbit, queue: Queue) -> None:
    before = [site.accept(steps=2) for _ in range(10)]
    rabbit.stop()
    during = [site.accept() for _ in range(5)]
    with pytest.raises(BrokerUnavailable):
        queue.check()
    assert "broker_unavailable" in site.get("/readyz").text
    rabbit.start()
    site.all_succeed(before + during)
    wait_for(lambda: "broker_unavailable" not in site.get("/readyz").text, BACK)


def timed(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def test_a_broker_that_hangs_hangs_nobody(site: Site, rabbit: Rabbit, queue: Queue) -> None:
    name = f"local.{uuid4().hex}"
    wait_for(lambda: queue.enqueue(name, uuid4()))  # its first ticket makes the queue, which takes its time

    def fails(call: Callable[[], object]) -> None:
        with pytest.raises(BrokerUnavailable):
            call()

    rabbit.send(signal.SIGSTOP)
    try:
        for _ in range(2):  # by a connection that stands, and by a new one
            queue._down_until = 0.0
            assert timed(lambda: not queue.enqueue(name, uuid4()) or pytest.fail("nobody took it")) < 2
        assert timed(lambda: fails(queue.check)) < 2
        assert timed(lambda: fails(lambda: queue.depth(name))) < 2
        jobs = []
        for _ in range(3):
            assert timed(lambda: jobs.append(site.accept("the broker hangs"))) < 2
    finally:
        rabbit.send(signal.SIGCONT)
    site.all_succeed(jobs)


def test_a_ticket_that_is_refused_is_one_that_was_not_sent(rabbit: Rabbit, queue: Queue) -> None:
    other = f"local.{uuid4().hex}"
    with Connection(rabbit.url) as connection, connection.channel() as channel:
        channel.queue_declare(other, durable=True, auto_delete=False, arguments={"x-queue-type": "classic"})
        assert not queue.enqueue(other, uuid4()), "a queue of this name and of another kind is there"
        channel.queue_delete(other)
    queue._down_until = 0.0
    assert queue.enqueue(other, uuid4()), "the connection is of use again"


def test_without_a_broker_nothing_hangs(rabbit: Rabbit) -> None:
    port = rabbit.url.rpartition(":")[2].strip("/")
    nowhere = Queue(Settings(broker_url=SecretStr(rabbit.url.replace(port, "1"))))
    assert not nowhere.enqueue("local.x", uuid4())
    with pytest.raises(BrokerUnavailable):
        nowhere.depth("local.x")
    with pytest.raises(BrokerUnavailable):
        nowhere.check()
    nowhere.close()
