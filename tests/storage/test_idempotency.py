"""One key, one call, one job: for each tenant, at once or one after the other, and whatever dies in between."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select, text

from fluxfarm.errors import IdempotencyInFlight, IdempotencyKeyReused
from fluxfarm.settings import Settings
from storage.database import Database
from storage.records import IdempotencyKey, Job, Tenant
from storage.repository import idempotency, jobs, tenants
from storage.repository.idempotency import First, Taken
from tests.making import MODEL, QUEUE, make_request

DAY = 86_400


@pytest.fixture
def stranger(database: Database) -> Tenant:
    with database.transaction() as session:
        return tenants.ensure_tenant(session, "stranger")


def call(tenant: Tenant, key: str = "k", digest: bytes = b"same") -> Taken:
    return Taken(tenant_id=tenant.id, key=key, digest=digest, holder=uuid4())


def take(database: Database, taken: Taken) -> First | None:
    with database.transaction() as session:
        return idempotency.take(session, taken)


def submit(database: Database, taken: Taken) -> First | None:
    """Take the key and make its job, in one transaction."""
    with database.transaction() as session:
        first = idempotency.take(session, taken)
        if first is None:
            store(session, taken)
            idempotency.finish(session, taken, status_code=202, ttl=DAY)
        return first


def store(session: Any, taken: Taken) -> Job:
    request = make_request()
    return jobs.create(
        session,
        jobs.NewJob(uuid=taken.holder, tenant_id=taken.tenant_id, request=request, prompt_object={}, queue=QUEUE),
    )


def finish(database: Database, taken: Taken) -> None:
    """Make the job of a key that was taken in an earlier transaction."""
    with database.transaction() as session:
        store(session, taken)
        idempotency.finish(session, taken, status_code=202, ttl=DAY)


def keys(database: Database) -> int:
    with database.transaction() as session:
        return session.scalar(select(func.count()).select_from(IdempotencyKey)) or 0


def age(database: Database, seconds: float) -> None:
    with database.engine.begin() as connection:
        connection.execute(
            text("UPDATE idempotency_keys SET expires_at = expires_at - make_interval(secs => :s)"), {"s": seconds}
        )


def test_the_second_call_gets_the_job_of_the_first(database: Database, tenant: Tenant) -> None:
    first = call(tenant)
    assert submit(database, first) is None
    again = submit(database, call(tenant))
    assert again is not None
    assert (again.job.uuid, again.job.model, again.status_code) == (first.holder, MODEL, 202)


def test_another_call_is_refused_and_leaves_the_first_alone(database: Database, tenant: Tenant) -> None:
    first = call(tenant)
    submit(database, first)
    with pytest.raises(IdempotencyKeyReused):
        submit(database, call(tenant, digest=b"other"))
    again = submit(database, call(tenant))
    assert again is not None
    assert again.job.uuid == first.holder


def test_tenants_have_keys_of_their_own(database: Database, tenant: Tenant, stranger: Tenant) -> None:
    submit(database, call(tenant))
    assert submit(database, call(stranger, digest=b"other")) is None


def test_what_is_in_flight_is_told_and_runs_out(database: Database, tenant: Tenant) -> None:
    slow = call(tenant)
    assert take(database, slow) is None
    with pytest.raises(IdempotencyInFlight) as caught:
        take(database, call(tenant))
    assert caught.value.retry_after == idempotency.RETRY_AFTER
    with pytest.raises(IdempotencyKeyReused):
        take(database, call(tenant, digest=b"other"))
    age(database, idempotency.IN_FLIGHT + 1)
    quick = call(tenant)
    assert submit(database, quick) is None
    # The first one comes back after all: it lost the key, so it must make no job.
    with pytest.raises(IdempotencyInFlight):
        finish(database, slow)
    with database.transaction() as session:
        assert session.scalars(select(Job.uuid)).all() == [quick.holder]


def test_a_transaction_that_dies_leaves_the_key_free(database: Database, tenant: Tenant) -> None:
    def die() -> None:
        with database.transaction() as session:
            idempotency.take(session, call(tenant))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        die()
    assert keys(database) == 0
    assert submit(database, call(tenant)) is None


def test_a_connection_that_is_killed_leaves_the_key_free(database: Database, tenant: Tenant) -> None:
    with database.engine.connect() as doomed:
        doomed.begin()
        pid = doomed.scalar(text("SELECT pg_backend_pid()"))
        doomed.execute(
            text(
                "INSERT INTO idempotency_keys (tenant_id, key, digest, holder, expires_at) "
                "VALUES (:tenant, 'k', 'x', :holder, now() + interval '1 day')"
            ),
            {"tenant": tenant.id, "holder": uuid4()},
        )
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(submit, database, call(tenant))
            with database.engine.begin() as killer:
                killer.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            assert waiting.result(timeout=10) is None
        doomed.invalidate()
    assert keys(database) == 1


def test_released_keys_can_be_taken_at_once_but_not_those_of_a_job(database: Database, tenant: Tenant) -> None:
    failed, done = call(tenant, "failed"), call(tenant, "done")
    take(database, failed)
    submit(database, done)
    with database.transaction() as session:
        idempotency.release(session, failed)
        idempotency.release(session, done)
    assert take(database, call(tenant, "failed", b"other")) is None
    assert submit(database, call(tenant, "done")) is not None


def test_many_at_once_are_one_job(database: Database, tenant: Tenant) -> None:
    with ThreadPoolExecutor(16) as pool:
        firsts = list(pool.map(lambda _: submit(database, call(tenant)), range(40)))
    assert firsts.count(None) == 1
    assert len({first.job.uuid for first in firsts if first is not None}) == 1
    with database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 1


def test_the_erased_job_takes_its_key_with_it(database: Database, tenant: Tenant) -> None:
    first = call(tenant)
    submit(database, first)
    with database.transaction() as session:
        jobs.erase(session, tenant.id, first.holder)
    assert keys(database) == 0


def test_keys_are_forgotten_after_their_time_and_not_before(
    database: Database, tenant: Tenant, settings: Settings
) -> None:
    submit(database, call(tenant, "old"))
    age(database, settings.idempotency_ttl - 60)
    with database.transaction() as session:
        assert idempotency.forget(session) == 0
    age(database, 61)
    submit(database, call(tenant, "new"))
    assert submit(database, call(tenant, "old", b"other")) is None  # over its time: free, swept or not
    age(database, DAY - 60)
    with database.transaction() as session:
        assert idempotency.forget(session, limit=1) == 0
    age(database, 61)
    with database.transaction() as session:
        assert [idempotency.forget(session, limit=1) for _ in range(3)] == [1, 1, 0]
