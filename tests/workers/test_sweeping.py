from __future__ import annotations

import threading
import time
from uuid import uuid4

import pytest
from sqlalchemy import text

from fluxfarm.jobs import JobState
from fluxfarm.settings import Settings
from storage.database import Database
from storage.dispatcher import Dispatcher
from storage.objects import ObjectStore, make_store, object_key
from storage.objects_local import LocalStore
from storage.queue import Queue
from storage.records import Tenant
from storage.repository import idempotency
from storage.repository.idempotency import Taken
from tests.making import QUEUE, make_job, must_claim, read_job, state
from workers import scheduler
from workers.cleaning import Cleaner
from workers.sweeping import Sweeper


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return make_store(settings)


@pytest.fixture
def sweeper(settings: Settings, database: Database) -> Sweeper:
    quick = settings.model_copy(update={"lease": 0.001})
    return Sweeper(quick, database, Dispatcher(database, Queue(settings), window=2))


@pytest.fixture
def cleaner(settings: Settings, database: Database, store: ObjectStore) -> Cleaner:
    return Cleaner(settings.model_copy(update={"lease": 0.001}), database, store)


def test_objects_of_a_dead_attempt_are_swept_and_the_winners_stay(
    database: Database, tenant: Tenant, store: ObjectStore, sweeper: Sweeper, cleaner: Cleaner
) -> None:
    job = make_job(database, tenant)
    must_claim(database, job.uuid, lease=0.001)
    lost, kept = (object_key(tenant.id, job.uuid, attempt, 0, "webp") for attempt in (1, 2))
    for key in (lost, kept):
        store.put(key, b"picture", "image/webp")
    time.sleep(0.02)
    assert sweeper.expire_leases() == 1
    time.sleep(0.02)
    assert cleaner.of_attempts() == 1
    assert list(store.keys("t/")) == [kept]
    assert cleaner.of_attempts() == 0


def test_one_round_deletes_more_than_a_batch(database: Database, tenant: Tenant, cleaner: Cleaner) -> None:
    fill = """
        INSERT INTO {0} SELECT gen_random_uuid(), :tenant, now() - interval '1 hour' FROM generate_series(1, 250)
    """
    with database.engine.begin() as connection:
        for into in ("erasures (job_uuid, tenant_id, erased_at)", "leftovers (path, tenant_id, since)"):
            connection.execute(text(fill.format(into)), {"tenant": tenant.id})
        connection.execute(text("UPDATE leftovers SET path = 't/' || path || '/'"))
    assert not cleaner.clean()
    with database.engine.connect() as connection:
        left = connection.scalar(text("SELECT (SELECT count(*) FROM erasures) + (SELECT count(*) FROM leftovers)"))
    assert left == 0


def test_one_round_does_all_of_it(database: Database, tenant: Tenant, sweeper: Sweeper) -> None:
    job = make_job(database, tenant)
    must_claim(database, job.uuid, lease=0.001)
    time.sleep(0.02)
    sweeper.sweep()
    assert state(database, job) is JobState.QUEUED


def test_the_scheduler_sends_what_nobody_sent(database: Database, tenant: Tenant, settings: Settings) -> None:
    job = make_job(database, tenant)
    late = make_job(database, tenant)
    with database.engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET deadline = now() - interval '1 second' WHERE uuid = :uuid"), {"uuid": late.uuid}
        )
    ended = threading.Event()
    thread = threading.Thread(target=scheduler.run, args=(settings, ended))
    thread.start()
    end = time.monotonic() + 10
    while read_job(database, job).dispatched_at is None and time.monotonic() < end:
        time.sleep(0.05)
    ended.set()
    thread.join(timeout=10)
    assert Queue(settings).depth(QUEUE) == 1
    assert state(database, late) is JobState.CANCELED
    problem = read_job(database, late).problem
    assert problem is not None
    assert problem.code == "deadline"


def test_a_store_that_is_silent_holds_up_neither_leases_nor_tickets(
    database: Database, tenant: Tenant, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered = threading.Event(), threading.Event()

    def wait(*_: object) -> int:
        asked.set()
        answered.wait(20)
        return 0

    monkeypatch.setattr(LocalStore, "delete_prefix", wait)
    erased, lost = make_job(database, tenant), make_job(database, tenant)
    with database.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO erasures VALUES (:uuid, :tenant, now() - interval '1 hour')"),
            {"uuid": erased.uuid, "tenant": tenant.id},
        )
    ended = threading.Event()
    quick = settings.model_copy(update={"sweep_interval": 0.1})
    thread = threading.Thread(target=scheduler.run, args=(quick, ended))
    thread.start()
    try:
        assert asked.wait(10)
        must_claim(database, lost.uuid, lease=0.001)
        end = time.monotonic() + 10
        while state(database, lost) is not JobState.QUEUED and time.monotonic() < end:
            time.sleep(0.05)
        assert state(database, lost) is JobState.QUEUED
    finally:
        answered.set()
        ended.set()
        thread.join(timeout=10)


def test_idempotency_keys_are_forgotten_in_time(database: Database, tenant: Tenant, sweeper: Sweeper) -> None:
    with database.transaction() as session:
        for key in ("old", "new"):
            call = Taken(tenant_id=tenant.id, key=key, digest=b"", holder=uuid4())
            idempotency.take(session, call)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE idempotency_keys SET expires_at = now() WHERE key = 'old'"))
    sweeper.sweep()
    with database.engine.connect() as connection:
        assert connection.scalars(text("SELECT key FROM idempotency_keys")).all() == ["new"]
