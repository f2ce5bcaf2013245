"""The progress of several running attempts, told in one statement."""

from __future__ import annotations

import time

from sqlalchemy import select

from fluxfarm.airecord import Problem
from storage.database import Database
from storage.listening import listen
from storage.records import Job, Tenant
from storage.repository import events, jobs
from storage.repository.events import JOB_CHANGED
from storage.repository.progress import Progress, report
from tests.making import make_job, must_claim, read_job

STOP = Problem(code="canceled", message="The caller stopped it.", retryable=False)


def steps(database: Database, job: Job) -> tuple[int | None, int | None]:
    found = read_job(database, job)
    return found.step, found.steps


def told(database: Database, job: Job) -> list[dict[str, object]]:
    with database.transaction() as session:
        return [dict(one.payload) for one in events.since(session, job.uuid, 0) if one.kind == "progress"]


def test_each_has_its_own_step_event_and_notice(database: Database, tenant: Tenant) -> None:
    made = [make_job(database, tenant) for _ in range(3)]
    for job in made:
        must_claim(database, job.uuid)
    notices = listen(database.url, (JOB_CHANGED,), pause=5.0)
    assert next(notices) is None
    with database.statements() as session:
        kept = report(session, [Progress(job.uuid, 1, n, 8) for n, job in enumerate(made[:2], 1)])
    assert kept == {(job.uuid, 1) for job in made[:2]}
    assert [told(database, job) for job in made] == [[{"step": 1, "steps": 8}], [{"step": 2, "steps": 8}], []]
    assert [steps(database, job)[0] for job in made[:2]] == [1, 2]
    heard = {notice.payload for notice in (next(notices), next(notices)) if notice is not None}
    assert heard == {str(job.uuid) for job in made[:2]}


def test_nothing_to_tell_asks_nothing(database: Database) -> None:
    with database.transaction() as session:
        assert report(session, []) == set()


def test_a_canceled_job_and_another_attempt_are_missing_from_the_answer(database: Database, tenant: Tenant) -> None:
    stopped, runs = make_job(database, tenant), make_job(database, tenant)
    for job in (stopped, runs):
        must_claim(database, job.uuid)
    with database.transaction() as session:
        jobs.cancel(session, tenant.id, stopped.uuid, STOP)
    with database.transaction() as session:
        assert report(session, [Progress(job.uuid, 1, 1, 8) for job in (stopped, runs)]) == {(runs.uuid, 1)}
        assert report(session, [Progress(runs.uuid, 2, 5, 8)]) == set()
    assert told(database, stopped) == []
    assert told(database, runs) == [{"step": 1, "steps": 8}]


def test_a_row_that_another_transaction_holds_still_counts_and_nobody_waits(database: Database, tenant: Tenant) -> None:
    locked, free = make_job(database, tenant), make_job(database, tenant)
    for job in (locked, free):
        must_claim(database, job.uuid)
    with database.transaction() as other:
        other.execute(select(Job.uuid).where(Job.uuid == locked.uuid).with_for_update())
        before = time.monotonic()
        with database.statements() as session:
            kept = report(session, [Progress(job.uuid, 1, 3, 8) for job in (locked, free)])
        assert time.monotonic() - before < 2.5, "it would wait 3 s for the lock"
    assert kept == {(locked.uuid, 1), (free.uuid, 1)}
    assert (told(database, locked), told(database, free)) == ([], [{"step": 3, "steps": 8}])
