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
from storage.queue import Queue
from storage.records import Tenant
from storage.repository import idempotency
from storage.repository.idempotency import Taken
from tests.making import QUEUE, make_job, must_claim, read_job, state
from workers import scheduler
from workers.retention import Retention
from workers.sweeping import Sweeper


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return make_store(settings)


@pytest.fixture
def sweeper(settings: Settings, database: Database, store: ObjectStore) -> Sweeper:
    quick = settings.model_copy(update={"lease": 0.001})
    return Sweeper(quick, database, Dispatcher(database, Queue(settings), window=2), store)


def test_objects_of_a_dead_attempt_are_swept_and_the_winners_stay(
    database: Database, tenant: Tenant, store: ObjectStore, sweeper: Sweeper
) -> None:
    job = make_job(database, tenant)
    must_claim(database, job.uuid, lease=0.001)
    lost, kept = (object_key(tenant.id, job.uuid, attempt, 0, "webp") for attempt in (1, 2))
    for key in (lost, kept):
        store.put(key, b"picture", "image/webp")
    time.sleep(0.02)
    assert sweeper.expire_leases() == 1
    time.sleep(0.02)
    assert sweeper.sweep_objects() == 1
    assert list(store.keys("t/")) == [kept]
    assert sweeper.sweep_objects() == 0


def test_one_sweep_deletes_more_than_a_batch(
    database: Database, tenant: Tenant, sweeper: Sweeper, settings: Settings, store: ObjectStore
) -> None:
    fill = """
        INSERT INTO {0} SELECT gen_random_uuid(), :tenant, now() - interval '1 hour' FROM generate_series(1, 250)
    """
    with database.engine.begin() as connection:
        for into in ("erasures (job_uuid, tenant_id, erased_at)", "leftovers (path, tenant_id, since)"):
            connection.execute(text(fill.format(into)), {"tenant": tenant.id})
        connection.execute(text("UPDATE leftovers SET path = 't/' || path || '/'"))
    assert sweeper.sweep_objects() == 250
    assert Retention(settings, database, store).sweep_leftovers() == 250
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
