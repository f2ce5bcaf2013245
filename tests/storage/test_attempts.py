from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from fluxfarm.airecord import Problem
from fluxfarm.jobs import JobState
from storage.database import Database
from storage.records import Job, Tenant
from storage.repository import attempts, dispatch, events
from storage.repository.attempts import Outcome
from storage.repository.progress import Progress, report
from storage.repository.turns import Claim
from tests.making import claim, make_job, must_claim, read_job, state

AGAIN = Problem(code="render_failed", message="It broke.", retryable=True)
NEVER = Problem(code="model_unavailable", message="No weights.", retryable=False)
POISON = Problem(code="poison", message="Killed its worker.", retryable=False)
LOST = Problem(code="worker_lost", message="Its worker died.", retryable=True)


def image(uuid: UUID, n: int = 0, attempt: int = 1) -> dict[str, Any]:
    return {
        "n": n,
        "object_key": f"t/x/{uuid}/{attempt}/{n}.webp",
        "seed": 2**63 - 1,
        "width": 64,
        "height": 64,
        "content_type": "image/webp",
        "size_bytes": 10,
        "sha256": "0" * 64,
    }


def finish(database: Database, claimed: Claim) -> bool:
    outcome = Outcome(
        images=[image(claimed.uuid, attempt=claimed.attempt)], timings={"render": 0.5}, model_revision="a" * 40
    )
    with database.transaction() as session:
        return attempts.finish(session, claimed, outcome)


def fail(database: Database, claimed: Claim, problem: Problem, max_attempts: int = 3) -> JobState | None:
    with database.transaction() as session:
        return attempts.fail(session, claimed, problem, max_attempts=max_attempts)


def expire(database: Database, max_attempts: int = 3) -> list[UUID]:
    with database.transaction() as session:
        return attempts.expire(session, max_attempts=max_attempts, poison=POISON, lost=LOST)


def end_lease(database: Database, job: Job) -> None:
    with database.engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET lease_expires_at = now() - interval '1 second' WHERE uuid = :uuid"),
            {"uuid": job.uuid},
        )


def ripen(database: Database, job: Job) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET run_after = now() WHERE uuid = :uuid"), {"uuid": job.uuid})
    with database.transaction() as session:
        dispatch.ripen(session)


def test_one_of_many_claims_wins(database: Database, tenant: Tenant) -> None:
    job = make_job(database, tenant)
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: claim(database, job.uuid), range(16)))
    won = [one for one in claims if one is not None]
    assert [one.attempt for one in won] == [1]
    found = read_job(database, job)
    assert found.status is JobState.RUNNING
    assert [(one.number, one.seeds) for one in found.attempts] == [(1, [7])]


def test_finish_shows_the_images_and_is_safe_to_repeat(database: Database, tenant: Tenant) -> None:
    job = make_job(database, tenant)
    claimed = must_claim(database, job.uuid)
    assert finish(database, claimed)
    assert finish(database, claimed), "a finish whose answer was lost is found to be done"
    found = read_job(database, job)
    assert found.status is JobState.SUCCESS
    assert [one.seed for one in found.images] == [2**63 - 1]
    assert found.attempts[0].timings == {"render": 0.5}
    assert found.attempts[0].model_revision == "a" * 40
    assert found.step == found.steps


def test_a_zombie_changes_nothing(database: Database, tenant: Tenant) -> None:
    job = make_job(database, tenant)
    zombie = must_claim(database, job.uuid)
    end_lease(database, job)
    assert expire(database) == [job.uuid]
    second = must_claim(database, job.uuid)
    assert second.attempt == 2
    with database.transaction() as session:
        assert report(session, [Progress(zombie.uuid, 1, 1, 2), Progress(second.uuid, 2, 3, 4)]) == {(second.uuid, 2)}
        held = [(zombie.uuid, 1), (second.uuid, 2)]
        assert attempts.renew(session, held, 30) == {(second.uuid, 2)}
    assert not finish(database, zombie)
    assert fail(database, zombie, NEVER) is None
    assert state(database, job) is JobState.RUNNING
    assert finish(database, second)
    assert not finish(database, zombie)
    assert [one.attempt for one in read_job(database, job).images] == [2]


def test_a_failure_that_may_pass_waits_and_then_runs_again(database: Database, tenant: Tenant) -> None:
    job = make_job(database, tenant)
    assert fail(database, must_claim(database, job.uuid), AGAIN) is JobState.QUEUED
    found = read_job(database, job)
    assert found.run_after is not None
    assert found.run_after - datetime.now(UTC) <= timedelta(seconds=attempts.BACKOFF_CAP)
    assert found.problem == AGAIN
    with database.transaction() as session:
        assert dispatch.pick(session, job.queue, 5) == [], "it waits for its time"
    ripen(database, job)
    with database.transaction() as session:
        assert dispatch.pick(session, job.queue, 5) == [job.uuid]
    second = must_claim(database, job.uuid)
    assert finish(database, second)
    assert [one.status for one in read_job(database, job).attempts] == [JobState.FAILED, JobState.SUCCESS]
    assert read_job(database, job).error is None


def test_a_failure_that_will_not_pass_is_final_at_once(database: Database, tenant: Tenant) -> None:
    job = make_job(database, tenant)
    assert fail(database, must_claim(database, job.uuid), NEVER) is JobState.FAILED
    assert read_job(database, job).problem == NEVER


def test_retries_are_counted(database: Database, tenant: Tenant) -> None:
    job = make_job(database, tenant)
    outcomes = []
    for _ in range(3):
        outcomes.append(fail(database, must_claim(database, job.uuid), AGAIN))
        ripen(database, job)
    assert outcomes == [JobState.QUEUED, JobState.QUEUED, JobState.FAILED]
    assert claim(database, job.uuid) is None


def test_a_poison_job_is_started_three_times(database: Database, tenant: Tenant) -> None:
    job = make_job(database, tenant)
    other = make_job(database, tenant)
    for _ in range(3):
        must_claim(database, job.uuid)
        end_lease(database, job)
        assert expire(database) == [job.uuid]
    found = read_job(database, job)
    assert (found.status, found.problem, found.attempt) == (JobState.FAILED, POISON, 3)
    assert finish(database, must_claim(database, other.uuid))


def test_a_renewed_lease_does_not_expire(database: Database, tenant: Tenant) -> None:
    job = make_job(database, tenant)
    claimed = must_claim(database, job.uuid, lease=0.2)
    with database.transaction() as session:
        assert attempts.renew(session, [(claimed.uuid, claimed.attempt)], 30)
    time.sleep(0.25)
    assert expire(database) == []


def test_two_sweepers_take_a_job_once(database: Database, tenant: Tenant) -> None:
    made = [make_job(database, tenant) for _ in range(10)]
    for job in made:
        must_claim(database, job.uuid, lease=0.001)
    time.sleep(0.05)
    with ThreadPoolExecutor(4) as pool:
        taken = [uuid for batch in pool.map(lambda _: expire(database), range(4)) for uuid in batch]
    assert sorted(taken) == sorted(job.uuid for job in made)


def test_a_job_given_back_waits_again_at_once(database: Database, tenant: Tenant) -> None:
    job = make_job(database, tenant)
    claimed = must_claim(database, job.uuid)
    with database.transaction() as session:
        assert attempts.give_back(session, claimed)
    assert state(database, job) is JobState.QUEUED
    assert must_claim(database, job.uuid).attempt == 2


def test_a_deadline_that_is_over_stops_the_start(database: Database, tenant: Tenant) -> None:
    job = make_job(database, tenant, deadline=datetime.now(UTC) - timedelta(seconds=1))
    assert claim(database, job.uuid) is None
    problem = Problem(code="deadline", message="Too late.", retryable=True)
    with database.transaction() as session:
        assert dispatch.overdue(session, problem) == [job.uuid]
    assert read_job(database, job).problem == problem
    assert state(database, job) is JobState.CANCELED


def test_events_tell_the_story_in_order(database: Database, tenant: Tenant) -> None:
    job = make_job(database, tenant)
    claimed = must_claim(database, job.uuid)
    with database.transaction() as session:
        assert report(session, [Progress(job.uuid, 1, 1, 2)])
    finish(database, claimed)
    with database.transaction() as session:
        story = [(one.kind, one.payload) for one in events.since(session, job.uuid, 0)]
        last = events.since(session, job.uuid, 0)[1].id
        assert len(events.since(session, job.uuid, last)) == 1
    assert story == [
        ("status", {"status": "RUNNING"}),
        ("progress", {"step": 1, "steps": 2}),
        ("status", {"status": "SUCCESS"}),
    ]


def test_objects_of_losing_attempts_are_found(database: Database, tenant: Tenant) -> None:
    job = make_job(database, tenant)
    must_claim(database, job.uuid)
    end_lease(database, job)
    expire(database)
    finish(database, must_claim(database, job.uuid))
    with database.transaction() as session:
        assert attempts.unswept(session, older_than=60) == []
        assert attempts.unswept(session, older_than=0) == [(tenant.id, job.uuid, 1)]
        attempts.mark_swept(session, job.uuid, 1)
        assert attempts.unswept(session, older_than=0) == []


@pytest.mark.parametrize("unknown", [uuid4()])
def test_a_ticket_for_nothing_claims_nothing(database: Database, unknown: UUID) -> None:
    assert claim(database, unknown) is None
