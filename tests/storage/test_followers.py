"""Who renders along with the job whose turn it is: its own shape and lane, in fair order, on a first start only."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text, update

from fluxfarm.airecord import Problem
from fluxfarm.jobs import JobState, JobType, Lane
from storage.database import Database
from storage.records import Attempt, Job, Tenant
from storage.repository import attempts, dispatch, endpoints, followers, jobs
from storage.repository.turns import Claim
from storage.webhook_records import Delivery
from tests.making import QUEUE, claimant, make_campaign, make_job, make_request, read_job
from tests.storage.test_fairness import fill, make_tenant

PROBLEM = Problem(code="worker_lost", message="Its worker died.", retryable=True)


def take(database: Database, most: int = 4, ticket: UUID | None = None) -> list[Claim]:
    with database.transaction() as session:
        return followers.take_together(session, QUEUE, ticket or uuid4(), claimant(), lambda _: most)


def uuids(claims: list[Claim]) -> list[UUID]:
    return [claim.uuid for claim in claims]


def test_jobs_of_one_shape_are_claimed_together_each_with_its_lease(database: Database, tenant: Tenant) -> None:
    made = [make_job(database, tenant, request=make_request(prompt=f"number {n}", seeds=(n,))) for n in range(6)]
    claims = take(database)
    assert uuids(claims) == [job.uuid for job in made[:4]]
    found = [read_job(database, job) for job in made]
    assert [job.status for job in found] == [JobState.RUNNING] * 4 + [JobState.QUEUED] * 2
    assert [job.attempt for job in found] == [1, 1, 1, 1, 0, 0]
    assert all(job.lease_expires_at for job in found[:4])
    assert [job.attempts[0].batch for job in found[:4]] == [
        {"position": n, "size": 4, "leader": str(made[0].uuid)} for n in range(4)
    ]
    assert uuids(take(database, most=1)) == [made[4].uuid]
    assert read_job(database, made[4]).attempts[0].batch is None


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 80},
        {"height": 80},
        {"steps": 3},
        {"guidance": 2.0},
        {"references": ("t/a/r.png",)},
        {"prompt_upsampling": True},
        {"type": JobType.IMAGE_EDITOR, "references": ("t/a/r.png",)},
        {"seeds": (1, 2, 3, 4)},
    ],
    ids=str,
)
def test_what_would_be_another_call_does_not_follow_nor_lead(
    database: Database, tenant: Tenant, changes: dict[str, Any]
) -> None:
    other = make_request(**changes)
    first, odd, last = (make_job(database, tenant, request=one) for one in (None, other, None))
    assert uuids(take(database)) == [first.uuid, last.uuid]
    again = make_job(database, tenant)
    assert uuids(take(database)) == [odd.uuid]
    assert uuids(take(database)) == [again.uuid]


@pytest.mark.parametrize(
    "changes", [{"prompt": "else"}, {"output_format": "png"}, {"previews": 2}, {"output_quality": 3}], ids=str
)
def test_what_changes_nothing_in_the_call_may_differ(
    database: Database, tenant: Tenant, changes: dict[str, Any]
) -> None:
    make_job(database, tenant)
    make_job(database, tenant, request=make_request(**changes))
    assert len(take(database)) == 2


def test_pictures_are_counted_and_not_jobs(database: Database, tenant: Tenant) -> None:
    sizes = ((1, 2), (1, 2, 3), (5, 6), (7,))
    made = [make_job(database, tenant, request=make_request(seeds=seeds)) for seeds in sizes]
    claims = take(database, most=4)
    assert uuids(claims) == [made[0].uuid, made[2].uuid], "two and three are too many, two and two are not"
    assert [read_job(database, job).attempts[0].batch for job in (made[0], made[2])] == [
        {"position": position, "size": 4, "leader": str(made[0].uuid)} for position in (0, 2)
    ]


def test_a_person_never_waits_for_a_campaign_in_the_batch(database: Database, tenant: Tenant) -> None:
    bulk = [make_job(database, tenant, lane=Lane.BULK) for _ in range(3)]
    mine = make_job(database, tenant, lane=Lane.INTERACTIVE)
    assert uuids(take(database)) == [mine.uuid]
    assert uuids(take(database)) == [job.uuid for job in bulk]


def test_the_fair_order_decides_who_follows_and_each_is_charged(database: Database) -> None:
    large, small = make_tenant(database, "large"), make_tenant(database, "small")
    fill(database, large, 60, seconds=3.0)
    fill(database, small, 60, seconds=1.0)
    owners = Counter(claim.tenant_id for _ in range(10) for claim in take(database, most=4))
    assert owners == {large.id: 10, small.id: 30}


def test_no_tenant_is_told_of_another_ones_job(database: Database) -> None:
    large, small = make_tenant(database, "large"), make_tenant(database, "small")
    fill(database, large, 2)
    fill(database, small, 2)
    claims = take(database)
    owners = {claim.uuid: claim.tenant_id for claim in claims}
    with database.transaction() as session:
        told = {row.job_uuid: row.batch or {} for row in session.scalars(select(Attempt))}
    assert {str(told[uuid]["leader"]) for uuid in told if owners[uuid] == claims[0].tenant_id} == {str(claims[0].uuid)}
    assert [told[uuid]["leader"] for uuid in told if owners[uuid] != claims[0].tenant_id] == [None, None]


def test_a_cap_on_what_runs_holds_for_followers_too(database: Database) -> None:
    capped = make_tenant(database, "capped")
    fill(database, capped, 9)
    with database.transaction() as session:
        session.execute(update(Tenant).where(Tenant.id == capped.id).values(max_running=3))
    assert len(take(database, most=8)) == 3
    assert take(database, most=8) == []


def test_a_paused_campaign_does_not_follow(database: Database, tenant: Tenant) -> None:
    held = make_campaign(tenant)
    held.wish = "pause"
    with database.transaction() as session:
        session.add(held)
    make_job(database, tenant, campaign="spring")
    free = make_job(database, tenant)
    assert uuids(take(database)) == [free.uuid]


def test_whatever_failed_comes_back_alone(database: Database, tenant: Tenant) -> None:
    """Else a job that kills its worker would take its neighbours with it three times, to the end of them all."""
    first, second = make_job(database, tenant), make_job(database, tenant)
    assert len(take(database)) == 2
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET lease_expires_at = now() - interval '1 minute'"))
    with database.transaction() as session:
        attempts.expire(session, max_attempts=3, poison=PROBLEM, lost=PROBLEM)
    third = make_job(database, tenant)
    assert uuids(take(database)) == [first.uuid]
    assert uuids(take(database)) == [second.uuid]
    assert uuids(take(database)) == [third.uuid]


def tickets(database: Database) -> int:
    with database.transaction() as session:
        return dispatch.in_flight(session, QUEUE)


def test_the_tickets_of_followers_stand_for_the_next_jobs(database: Database, tenant: Tenant) -> None:
    """Each claim takes one ticket from the broker and one mark from the record, however many jobs it takes."""
    fill(database, tenant, 10)
    with database.transaction() as session:
        sent = dispatch.pick(session, QUEUE, 3)
    assert len(take(database, most=4, ticket=sent[0])) == 4
    assert tickets(database) == 2
    assert len(take(database, most=4, ticket=sent[1])) == 4
    assert tickets(database) == 1
    assert len(take(database, most=4, ticket=sent[2])) == 2
    assert tickets(database) == 0
    assert take(database) == []


def test_a_ticket_without_its_job_is_nothing(database: Database, tenant: Tenant) -> None:
    fill(database, tenant, 3)
    with database.transaction() as session:
        sent = dispatch.pick(session, QUEUE, 3)
    assert len(take(database, most=4, ticket=sent[0])) == 3
    assert [take(database, most=4, ticket=one) for one in sent[1:]] == [[], []]


def test_no_job_is_claimed_twice_and_none_is_left_out(database: Database, tenant: Tenant) -> None:
    fill(database, tenant, 40)
    with ThreadPoolExecutor(6) as pool:
        taken = [claim.uuid for claims in pool.map(lambda _: take(database, most=3), range(16)) for claim in claims]
    assert len(taken) == len(set(taken)) == 40


def test_a_cancel_in_the_moment_of_the_claim_wins_or_is_told(database: Database, tenant: Tenant) -> None:
    made = [make_job(database, tenant) for _ in range(4)]
    with database.transaction() as session:
        jobs.cancel(session, tenant.id, made[2].uuid, PROBLEM)  # not committed, and locked
        claims = take(database)
    assert made[2].uuid not in uuids(claims)
    assert len(claims) == 3
    assert read_job(database, made[2]).status is JobState.CANCELED


def test_a_job_far_behind_is_not_looked_for(database: Database, tenant: Tenant) -> None:
    """The claim costs the same however many wait: only the first of a line are looked at."""
    first = make_job(database, tenant, lane=Lane.BULK)
    other = make_request(width=128).model_dump_json()
    fill(database, tenant, followers.SIGHT + 1)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET request = :r WHERE uuid <> :u"), {"r": other, "u": first.uuid})
    make_job(database, tenant, lane=Lane.BULK)
    assert uuids(take(database)) == [first.uuid]


def test_everybody_is_told_of_its_own_start(database: Database, tenant: Tenant) -> None:
    with database.transaction() as session:
        endpoint = endpoints.create(session, tenant.id, "https://example.com/hook", "sealed")
        endpoint.moments = ["start", "end"]
    made = [make_job(database, tenant, webhook_id=endpoint.id) for _ in range(3)]
    take(database)
    with database.transaction() as session:
        told = session.execute(select(Delivery.job_uuid, Delivery.type)).all()
        running = list(session.scalars(select(Job.uuid).where(Job.status == JobState.RUNNING)))
    assert {(row.job_uuid, row.type) for row in told} == {(job.uuid, "job.started") for job in made}
    assert set(running) == {job.uuid for job in made}
