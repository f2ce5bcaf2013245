from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from pydantic import SecretStr
from redis import Redis
from sqlalchemy import text

from fluxfarm.jobs import JobState, Lane
from fluxfarm.settings import Settings
from storage.database import Database
from storage.dispatcher import Dispatcher
from storage.queue import Queue, local_queue
from storage.records import Tenant, Worker
from storage.repository import dispatch, workers
from tests.making import QUEUE, claim, make_job, make_request, read_job, state


@pytest.fixture
def queue(settings: Settings) -> Queue:
    return Queue(settings)


@pytest.fixture
def dispatcher(database: Database, queue: Queue) -> Dispatcher:
    return Dispatcher(database, queue, window=2)


def tickets(settings: Settings, queue: str = QUEUE) -> list[str]:
    """Uuids of the messages that the broker holds, the next one first."""
    with Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True) as redis:
        messages = redis.lrange(queue, 0, -1)
        assert isinstance(messages, list)
        return [json.loads(message)["headers"]["id"] for message in reversed(messages)]


def add_worker(database: Database, slots: int) -> None:
    with database.transaction() as session:
        workers.register(
            session,
            Worker(
                id=uuid4(), name="w", pid=1, provider="local", queues=[QUEUE], models=[], device="cpu", slots=slots,
                state="ready",
            ),
        )  # fmt: skip


def test_a_ticket_carries_the_uuid_and_nothing_else(
    database: Database, tenant: Tenant, settings: Settings, dispatcher: Dispatcher
) -> None:
    job = make_job(database, tenant, request=make_request(prompt="CANARY-prompt"))
    assert dispatcher.dispatch(QUEUE) == 1
    with Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True) as redis:
        messages = redis.lrange(QUEUE, 0, -1)
        assert isinstance(messages, list)
        (message,) = messages
    assert json.loads(message)["headers"]["id"] == str(job.uuid)
    for secret in ("CANARY", "acme", str(tenant.id)):
        assert secret not in message


def test_only_a_window_goes_to_the_broker(
    database: Database, tenant: Tenant, settings: Settings, dispatcher: Dispatcher
) -> None:
    made = [make_job(database, tenant).uuid for _ in range(20)]
    add_worker(database, slots=3)
    assert dispatcher.dispatch_all() == 6
    assert dispatcher.dispatch_all() == 0
    assert tickets(settings) == [str(uuid) for uuid in made[:6]]
    assert claim(database, made[0]) is not None
    assert dispatcher.dispatch(QUEUE) == 1
    assert tickets(settings)[-1] == str(made[6])


def test_a_worker_sends_tickets_when_half_of_the_window_is_free(
    database: Database, tenant: Tenant, dispatcher: Dispatcher
) -> None:
    made = [make_job(database, tenant).uuid for _ in range(20)]
    add_worker(database, slots=3)
    assert dispatcher.dispatch(QUEUE, least=0.5) == 6
    sent = []
    for uuid in made[:6]:
        assert claim(database, uuid) is not None
        sent.append(dispatcher.dispatch(QUEUE, least=0.5))
    assert sent == [0, 0, 3, 0, 0, 3]


def test_lanes_then_priority_then_age(database: Database, tenant: Tenant) -> None:
    bulk = make_job(database, tenant, lane=Lane.BULK)
    old = make_job(database, tenant)
    young = make_job(database, tenant)
    urgent = make_job(database, tenant, priority=5)
    standard = make_job(database, tenant, lane=Lane.STANDARD)
    with database.transaction() as session:
        order = dispatch.pick(session, QUEUE, 10)
    assert order == [urgent.uuid, old.uuid, young.uuid, standard.uuid, bulk.uuid]


def test_many_dispatchers_send_each_job_once(
    database: Database, tenant: Tenant, settings: Settings, queue: Queue
) -> None:
    add_worker(database, slots=50)
    made = {str(make_job(database, tenant).uuid) for _ in range(40)}
    dispatchers = [Dispatcher(database, queue, window=2) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda one: one.dispatch_all(), dispatchers))
    sent = tickets(settings)
    assert len(sent) == len(set(sent))
    assert set(sent) == made


def test_queues_do_not_share_a_window(database: Database, tenant: Tenant, dispatcher: Dispatcher) -> None:
    other = local_queue("fluxfarm/flux-2-small")
    for queue in (QUEUE, other):
        for _ in range(6):
            make_job(database, tenant, queue=queue)
    with database.transaction() as session:
        assert dispatch.queues(session) == sorted([QUEUE, other])
    assert dispatcher.dispatch_all() == 2 * dispatch.SMALLEST_WINDOW


def test_a_dead_broker_costs_little_and_loses_nothing(database: Database, tenant: Tenant, settings: Settings) -> None:
    dead = settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:9/0")})
    job = make_job(database, tenant)
    dispatcher = Dispatcher(database, Queue(dead), window=2)
    started = time.monotonic()
    assert dispatcher.dispatch(QUEUE) == 0
    assert dispatcher.dispatch(QUEUE) == 0
    assert time.monotonic() - started < 1.0
    assert read_job(database, job).dispatched_at is None
    assert Dispatcher(database, Queue(settings), window=2).dispatch(QUEUE) == 1
    assert tickets(settings) == [str(job.uuid)]


def test_lost_tickets_are_sent_again_but_only_the_gap(
    database: Database, tenant: Tenant, settings: Settings, dispatcher: Dispatcher
) -> None:
    made = [make_job(database, tenant) for _ in range(4)]
    dispatcher.dispatch(QUEUE)
    assert dispatcher.resend_lost() == 0, "the broker holds all of them"
    with Redis.from_url(settings.redis_url.get_secret_value()) as redis:
        redis.lpop(QUEUE, 2)
    assert dispatcher.resend_lost() == 0, "a ticket may be on its way for some seconds"
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET dispatched_at = dispatched_at - interval '1 minute'"))
    assert dispatcher.resend_lost() == 2
    assert dispatcher.resend_lost() == 0
    assert len(tickets(settings)) == 4
    assert all(state(database, job) is JobState.QUEUED for job in made)


def test_a_flushed_broker_gets_all_tickets_again(
    database: Database, tenant: Tenant, settings: Settings, dispatcher: Dispatcher
) -> None:
    made = {str(make_job(database, tenant).uuid) for _ in range(3)}
    dispatcher.dispatch(QUEUE)
    with Redis.from_url(settings.redis_url.get_secret_value()) as redis:
        redis.flushall()
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET dispatched_at = dispatched_at - interval '1 minute'"))
    dispatcher.resend_lost()
    assert set(tickets(settings)) == made


def test_a_dispatch_does_not_wait_for_a_locked_job(database: Database, tenant: Tenant) -> None:
    first, second = make_job(database, tenant), make_job(database, tenant)
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with database.transaction() as session:
            assert dispatch.pick(session, QUEUE, 1) == [first.uuid]
            locked.set()
            done.wait(5)

    holder = threading.Thread(target=hold)
    holder.start()
    assert locked.wait(5)
    with database.transaction() as session:
        assert dispatch.pick(session, QUEUE, 1) == [second.uuid]
    done.set()
    holder.join()
