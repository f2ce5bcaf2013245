from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from fluxfarm.airecord import Problem
from fluxfarm.errors import Conflict, NotFound
from fluxfarm.jobs import JobState, Lane
from storage.database import Database
from storage.records import Job, Tenant
from storage.repository import attempts, events, jobs, tenants
from storage.repository.jobs import Filter
from storage.repository.turns import Claim
from tests.making import claim, make_job, make_request, must_claim, read_job, state

STOP = Problem(code="canceled", message="The caller stopped it.", retryable=False)


@pytest.fixture
def stranger(database: Database) -> Tenant:
    with database.transaction() as session:
        return tenants.ensure_tenant(session, "stranger")


def cancel(database: Database, job: Job) -> Job:
    with database.transaction() as session:
        return jobs.cancel(session, job.tenant_id, job.uuid, STOP)


def test_what_is_stored_comes_back(database: Database, tenant: Tenant) -> None:
    request = make_request(seeds=(0, 2**63 - 1), prompt="Grüße, 東京 🗼")
    job = make_job(database, tenant, request=request, lane=Lane.BULK, campaign="summer", tags=("a", "b"))
    found = read_job(database, job)
    assert found.render_request == request
    assert found.status is JobState.QUEUED
    assert (found.lane, found.campaign, found.tags, found.steps) == (2, "summer", ["a", "b"], 4)
    assert found.created_at.utcoffset() is not None


def test_another_tenants_job_is_no_job(database: Database, tenant: Tenant, stranger: Tenant) -> None:
    job = make_job(database, tenant)
    for call in (jobs.read, jobs.status, jobs.erase):
        with pytest.raises(NotFound), database.transaction() as session:
            call(session, stranger.id, job.uuid)
    with pytest.raises(NotFound), database.transaction() as session:
        jobs.cancel(session, stranger.id, job.uuid, STOP)
    with database.transaction() as session:
        assert jobs.list_page(session, stranger.id, Filter(), before=None, limit=10).jobs == []
    assert state(database, job) is JobState.QUEUED


def test_pages_are_stable_while_jobs_come_in(database: Database, tenant: Tenant) -> None:
    made = [make_job(database, tenant).uuid for _ in range(5)]
    seen = []
    before: int | None = None
    while True:
        with database.transaction() as session:
            page = jobs.list_page(session, tenant.id, Filter(), before=before, limit=2)
        seen += [job.uuid for job in page.jobs]
        make_job(database, tenant)
        before = page.next_before
        if before is None:
            break
    assert seen == list(reversed(made))


def test_filters(database: Database, tenant: Tenant) -> None:
    one = make_job(database, tenant, campaign="summer", tags=("x",))
    two = make_job(database, tenant, tags=("x", "y"))
    cancel(database, two)
    for wanted, expected in (
        (Filter(campaign="summer"), [one]),
        (Filter(tag="x"), [two, one]),
        (Filter(tag="y"), [two]),
        (Filter(status=JobState.CANCELED), [two]),
        (Filter(error="canceled"), [two]),
        (Filter(status=JobState.RUNNING), []),
    ):
        with database.transaction() as session:
            found = jobs.list_page(session, tenant.id, wanted, before=None, limit=10).jobs
        assert [job.uuid for job in found] == [job.uuid for job in expected], wanted


@pytest.mark.parametrize("running", [False, True])
def test_cancel_takes_a_job_that_is_not_over(database: Database, tenant: Tenant, running: bool) -> None:
    job = make_job(database, tenant)
    if running:
        must_claim(database, job.uuid)
    stopped = cancel(database, job)
    assert stopped.status is JobState.CANCELED
    assert stopped.problem == STOP
    assert stopped.finished_at is not None
    assert claim(database, job.uuid) is None
    with pytest.raises(Conflict, match="already CANCELED"):
        cancel(database, job)


def test_a_cancel_that_races_with_success_ends_in_exactly_one(database: Database, tenant: Tenant) -> None:
    for _ in range(10):
        job = make_job(database, tenant)
        claimed = must_claim(database, job.uuid)

        def finish(claimed: Claim = claimed) -> bool:
            with database.transaction() as session:
                return attempts.finish(session, claimed, attempts.Outcome(images=[], timings={}, model_revision="test"))

        def stop(job: Job = job) -> bool:
            try:
                cancel(database, job)
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            finished, stopped = pool.submit(finish), pool.submit(stop)
        assert finished.result() != stopped.result()
        expected = JobState.SUCCESS if finished.result() else JobState.CANCELED
        assert state(database, job) is expected


def test_erase_leaves_no_trace(database: Database, tenant: Tenant) -> None:
    job = make_job(database, tenant)
    claimed = must_claim(database, job.uuid)
    with database.transaction() as session:
        jobs.erase(session, tenant.id, job.uuid)
    with pytest.raises(NotFound):
        read_job(database, job)
    with database.transaction() as session:
        assert events.since(session, job.uuid, 0) == []
        assert not attempts.finish(session, claimed, attempts.Outcome(images=[], timings={}, model_revision="test")), (
            "a worker that comes back must not revive it"
        )
    with pytest.raises(NotFound), database.transaction() as session:
        jobs.erase(session, tenant.id, uuid4())
