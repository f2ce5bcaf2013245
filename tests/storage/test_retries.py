"""A retry is a new job; each old job has one at most, however many ask at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from fluxfarm.airecord import Problem
from fluxfarm.errors import AlreadyRetried, Conflict, ExternalIdTaken, NotFound
from fluxfarm.jobs import JobState, Lane
from storage.database import Database
from storage.records import Job, Tenant
from storage.repository import attempts, jobs, retries, tenants
from storage.repository.jobs import Filter
from tests.making import QUEUE, make_job, make_request, must_claim, read_job

BROKEN = Problem(code="render_failed", message="The pipeline raised.", retryable=False)
LOST = Problem(code="worker_lost", message="The worker died.", retryable=False)
FAILED = Filter(status=JobState.FAILED)


def fail(database: Database, job: Job, problem: Problem = BROKEN) -> Job:
    claimed = must_claim(database, job.uuid)
    with database.transaction() as session:
        attempts.fail(session, claimed, problem, max_attempts=1)
    return job


def retry(database: Database, tenant: Tenant, uuid: UUID) -> Job:
    with database.transaction() as session:
        old = retries.lock_one(session, tenant.id, uuid)
        return jobs.create(session, retries.again(old, uuid4(), QUEUE, old.render_request.references))


def found(database: Database, tenant: Tenant, wanted: Filter = FAILED, before: int | None = None) -> list[UUID]:
    with database.transaction() as session:
        return [job.uuid for job in retries.candidates(session, tenant.id, wanted, before=before, limit=10)]


def test_the_new_job_has_everything_but_the_end(database: Database, tenant: Tenant) -> None:
    ahead = datetime.now(UTC) + timedelta(hours=1)
    old = make_job(
        database,
        tenant,
        request=make_request(seeds=(7, 8)),
        lane=Lane.BULK,
        priority=3,
        campaign="spring",
        tags=("a",),
        deadline=ahead,
        external_id="order 7",
        provider="local",
        webhook_id="wh_any",
    )
    fail(database, old)
    new = read_job(database, retry(database, tenant, old.uuid))
    was = read_job(database, old)
    assert (new.status, new.retry_of, new.error, new.attempt) == (JobState.QUEUED, old.uuid, None, 0)
    kept = "request prompt_object lane priority campaign tags deadline provider queue webhook_id gpu_seconds steps"
    for name in kept.split():
        assert getattr(new, name) == getattr(was, name), name
    assert (was.status, was.external_id, new.external_id) == (JobState.FAILED, "order 7", None)


def test_a_deadline_that_has_passed_is_dropped(database: Database, tenant: Tenant) -> None:
    old = fail(database, make_job(database, tenant, deadline=datetime.now(UTC) + timedelta(hours=1)))
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET deadline = now() - interval '1 second'"))
    assert read_job(database, retry(database, tenant, old.uuid)).deadline is None


def test_a_job_is_retried_once_and_its_retry_in_turn(database: Database, tenant: Tenant) -> None:
    old = fail(database, make_job(database, tenant))
    new = retry(database, tenant, old.uuid)
    with pytest.raises(AlreadyRetried) as caught:
        retry(database, tenant, old.uuid)
    assert caught.value.job == new.uuid
    fail(database, new)
    assert retry(database, tenant, new.uuid).retry_of == new.uuid
    with database.transaction() as session:
        jobs.erase(session, tenant.id, new.uuid)
    assert retry(database, tenant, old.uuid).retry_of == old.uuid


def test_only_what_ended_badly_and_is_ones_own(database: Database, tenant: Tenant) -> None:
    queued = make_job(database, tenant)
    with pytest.raises(Conflict, match="QUEUED"):
        retry(database, tenant, queued.uuid)
    must_claim(database, queued.uuid)
    with pytest.raises(Conflict, match="RUNNING"):
        retry(database, tenant, queued.uuid)
    with database.transaction() as session:
        stranger = tenants.ensure_tenant(session, "stranger")
        jobs.cancel(session, tenant.id, queued.uuid, BROKEN)
    with pytest.raises(NotFound):
        retry(database, stranger, queued.uuid)
    assert found(database, stranger, Filter(status=JobState.CANCELED)) == []
    assert retry(database, tenant, queued.uuid).retry_of == queued.uuid


def test_ten_at_once_make_one(database: Database, tenant: Tenant) -> None:
    old = fail(database, make_job(database, tenant))

    def attempt(_: int) -> UUID | None:
        try:
            return retry(database, tenant, old.uuid).uuid
        except AlreadyRetried as error:
            return error.job

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(attempt, range(10)))) == 1


def test_candidates_are_the_failed_ones_that_fit_and_were_not_retried(database: Database, tenant: Tenant) -> None:
    plain = fail(database, make_job(database, tenant))
    lost = fail(database, make_job(database, tenant, campaign="spring"), LOST)
    tagged = fail(database, make_job(database, tenant, tags=("sale",)))
    make_job(database, tenant)
    assert found(database, tenant) == [tagged.uuid, lost.uuid, plain.uuid]
    assert found(database, tenant, before=lost.seq) == [plain.uuid]
    assert found(database, tenant, Filter(status=JobState.FAILED, error="worker_lost")) == [lost.uuid]
    assert found(database, tenant, Filter(status=JobState.FAILED, campaign="spring")) == [lost.uuid]
    assert found(database, tenant, Filter(status=JobState.FAILED, tag="sale")) == [tagged.uuid]
    retry(database, tenant, lost.uuid)
    assert found(database, tenant) == [tagged.uuid, plain.uuid]
    with database.transaction() as session:
        free = retries.lock_many(session, tenant.id, [plain.uuid, lost.uuid, tagged.uuid, uuid4()])
    assert free == {plain.uuid, tagged.uuid}


def test_an_external_id_is_taken_once_for_each_tenant(database: Database, tenant: Tenant) -> None:
    first = make_job(database, tenant, external_id="order 7")
    with pytest.raises(ExternalIdTaken) as caught:
        make_job(database, tenant, external_id="order 7")
    assert caught.value.job == first.uuid
    with database.transaction() as session:
        stranger = tenants.ensure_tenant(session, "stranger")
    make_job(database, stranger, external_id="order 7")
    with database.transaction() as session:
        jobs.erase(session, tenant.id, first.uuid)
    make_job(database, tenant, external_id="order 7")


def test_one_of_many_at_once_gets_the_external_id(database: Database, tenant: Tenant) -> None:
    def attempt(_: int) -> UUID | None:
        try:
            return make_job(database, tenant, external_id="order 7").uuid
        except ExternalIdTaken as error:
            return error.job

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(attempt, range(20)))) == 1
