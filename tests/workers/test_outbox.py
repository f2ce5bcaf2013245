from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, update

from fluxfarm.jobs import JobState
from storage.database import Database
from storage.records import Job
from storage.repository import attempts, dispatch, endpoints, jobs
from tests.making import make_job, must_claim
from tests.workers.desk import OUTCOME, PROBLEM, OpenDesk


def _succeed(database: Database, job: Job) -> None:
    claimed = must_claim(database, job.uuid)
    with database.transaction() as session:
        assert attempts.finish(session, claimed, OUTCOME)
        assert attempts.finish(session, claimed, OUTCOME)  # a finish whose answer was lost is repeated


def _fail(database: Database, job: Job) -> None:
    claimed = must_claim(database, job.uuid)
    with database.transaction() as session:
        assert attempts.fail(session, claimed, PROBLEM, max_attempts=3) is JobState.FAILED
        assert attempts.fail(session, claimed, PROBLEM, max_attempts=3) is None


def _poison(database: Database, job: Job) -> None:
    must_claim(database, job.uuid, lease=0.001)
    time.sleep(0.02)
    with database.transaction() as session:
        assert attempts.expire(session, max_attempts=1, poison=PROBLEM, lost=PROBLEM) == [job.uuid]


def _cancel(database: Database, job: Job) -> None:
    with database.transaction() as session:
        jobs.cancel(session, job.tenant_id, job.uuid, PROBLEM)


def _overdue(database: Database, job: Job) -> None:
    with database.transaction() as session:
        session.execute(update(Job).values(deadline=func.now() - timedelta(seconds=1)))
        assert dispatch.overdue(session, PROBLEM) == [job.uuid]


ENDS = {
    "succeed": (_succeed, "job.succeeded", None),
    "fail": (_fail, "job.failed", "render_failed"),
    "poison": (_poison, "job.failed", "render_failed"),
    "cancel": (_cancel, "job.canceled", "render_failed"),
    "overdue": (_overdue, "job.canceled", "render_failed"),
}


@pytest.mark.parametrize("name", ENDS)
def test_every_end_of_a_job_writes_one_message_with_it(database: Database, desk: OpenDesk, name: str) -> None:
    end, event, code = ENDS[name]
    with desk() as open_:
        job = make_job(database, open_.tenant, webhook_id=open_.endpoint.id)
        end(database, job)
        found = open_.delivery()
        assert (found.job_uuid, found.type, found.error_code, found.state) == (job.uuid, event, code, "pending")


@pytest.mark.parametrize("name", ENDS)
def test_a_job_without_a_webhook_writes_none(database: Database, desk: OpenDesk, name: str) -> None:
    with desk() as open_:
        ENDS[name][0](database, make_job(database, open_.tenant))
        assert open_.all() == []


def test_a_move_that_is_not_final_writes_none(database: Database, desk: OpenDesk) -> None:
    with desk() as open_:
        job = make_job(database, open_.tenant, webhook_id=open_.endpoint.id)
        claimed = must_claim(database, job.uuid)
        with database.transaction() as session:
            again = PROBLEM.model_copy(update={"retryable": True})
            assert attempts.fail(session, claimed, again, max_attempts=3) is JobState.QUEUED
        assert open_.all() == []


def test_a_finish_that_is_rolled_back_leaves_no_message(database: Database, desk: OpenDesk) -> None:
    with desk() as open_:
        job = make_job(database, open_.tenant, webhook_id=open_.endpoint.id)
        claimed = must_claim(database, job.uuid)
        with pytest.raises(ZeroDivisionError), database.transaction() as session:
            assert 1 / (attempts.finish(session, claimed, OUTCOME) - 1)
        assert open_.all() == []


def test_an_endpoint_deleted_beside_the_finish_does_not_keep_the_job_from_ending(
    database: Database, desk: OpenDesk
) -> None:
    with desk() as open_:
        job = make_job(database, open_.tenant, webhook_id=open_.endpoint.id)
        claimed = must_claim(database, job.uuid)
        with database.transaction() as other:
            endpoints.remove(other, open_.tenant.id, open_.endpoint.id)
            ended = threading.Thread(target=_finish_in_a_thread, args=(database, claimed))
            ended.start()
            time.sleep(0.2)  # it waits for the row of the endpoint
            assert ended.is_alive()
        ended.join(10)
        with database.transaction() as session:
            assert jobs.status(session, open_.tenant.id, job.uuid) is JobState.SUCCESS
        assert open_.all() == []


def _finish_in_a_thread(database: Database, claimed: Any) -> None:
    with database.transaction() as session:
        assert attempts.finish(session, claimed, OUTCOME)
