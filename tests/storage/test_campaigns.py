"""Held campaigns get no turn and hold no ticket; money has one cap, whoever settles."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from fluxfarm.campaigns.record import CAMPAIGN_CANCELED
from fluxfarm.errors import BudgetExceeded
from fluxfarm.jobs import JobState, Lane
from storage.database import Database
from storage.records import Job, Tenant
from storage.repository import attempts, campaigns, copied_jobs, dispatch, explain, ledger, turns
from storage.repository.campaigns import Wish
from storage.repository.jobs import NewJob
from tests.making import QUEUE, make_campaign, make_request, read_job, state, take_alone
from tests.money import assert_balanced


@pytest.fixture
def waiting(database: Database, tenant: Tenant) -> list[UUID]:
    """A campaign of three jobs that wait."""
    uuids = [uuid4() for _ in range(3)]
    with database.transaction() as session:
        made = make_campaign(tenant)
        assert campaigns.create(session, made)
        assert not campaigns.create(session, made)
        copied_jobs.copy_many(
            session,
            [
                NewJob(
                    uuid=uuid,
                    tenant_id=tenant.id,
                    request=make_request(),
                    prompt_object={"prompt": "p"},
                    queue=QUEUE,
                    lane=Lane.BULK,
                    campaign="spring",
                    tags=("a, b", 'c"'),
                )
                for uuid in uuids
            ],
        )
    return uuids


def take(database: Database) -> UUID | None:
    with database.transaction() as session:
        claimed = take_alone(session)
    return None if claimed is None else claimed.uuid


def wish(database: Database, tenant: Tenant, wanted: Wish) -> None:
    with database.transaction() as session:
        campaigns.wish(session, tenant.id, "spring", wanted)


def test_copied_jobs_are_like_stored_ones(database: Database, waiting: list[UUID]) -> None:
    with database.transaction() as session:
        copied = session.get_one(Job, waiting[0])
        assert copied.render_request == make_request()
        assert (copied.tags, copied.status, copied.steps) == (["a, b", 'c"'], JobState.QUEUED, 2)
        assert (copied.prompt_object, copied.gpu_seconds > 0) == ({"prompt": "p"}, True)
        assert [session.get_one(Job, uuid).seq for uuid in waiting] == [copied.seq, copied.seq + 1, copied.seq + 2]


def test_a_paused_campaign_gets_no_turn_and_keeps_no_ticket(
    database: Database, tenant: Tenant, waiting: list[UUID]
) -> None:
    with database.transaction() as session:
        assert dispatch.pick(session, QUEUE, 2) == waiting[:2]
    wish(database, tenant, "pause")
    with database.transaction() as session:
        assert dispatch.in_flight(session, QUEUE) == 0
        assert dispatch.pick(session, QUEUE, 2) == []
        assert explain.standing(session, session.get_one(Job, waiting[0])) is None
    assert take(database) is None
    wish(database, tenant, "run")
    assert take(database) == waiting[0]


def test_a_ticket_that_was_on_its_way_at_the_pause_is_taken_back(
    database: Database, tenant: Tenant, waiting: list[UUID]
) -> None:
    wish(database, tenant, "pause")
    with database.transaction() as session:
        session.get_one(Job, waiting[0]).dispatched_at = session.get_one(Job, waiting[0]).created_at
    with database.transaction() as session:
        campaigns.park(session, CAMPAIGN_CANCELED)
        assert dispatch.in_flight(session, QUEUE) == 0


def test_a_job_that_comes_back_to_a_canceled_campaign_ends(
    database: Database, tenant: Tenant, waiting: list[UUID]
) -> None:
    assert take(database) == waiting[0]
    wish(database, tenant, "cancel")
    with database.transaction() as session:
        assert set(campaigns.cancel_waiting(session, tenant.id, "spring", CAMPAIGN_CANCELED)) == set(waiting[1:])
        running = session.get_one(Job, waiting[0])
        claimed = turns.Claim(running.uuid, tenant.id, 1, running.render_request, 0.0)
        assert attempts.give_back(session, claimed)
    with database.transaction() as session:
        campaigns.park(session, CAMPAIGN_CANCELED)
        ended = session.get_one(Job, waiting[0])
        assert ended.status is JobState.CANCELED
    assert state(database, ended) is JobState.CANCELED
    assert read_job(database, ended).problem == CAMPAIGN_CANCELED


def test_two_hundred_at_once_never_spend_beyond_the_budget(database: Database, tenant: Tenant) -> None:
    """Each reserves what it is estimated at, costs a little less or as much, and settles; 0.07 USD of 10.00 each."""
    with database.transaction() as session:
        ledger.set_cap(session, tenant.id, "spring", Decimal("10.00"))

    def spend(number: int) -> bool:
        job = uuid4()
        try:
            with database.transaction() as session:
                ledger.reserve(session, tenant.id, "spring", job, Decimal("0.07"))
        except BudgetExceeded:
            return False
        with database.transaction() as session:
            ledger.settle(session, tenant.id, "spring", job, Decimal("0.07") - Decimal(number % 3) / 100)
            ledger.close(session, job)
            found = ledger.standing(session, tenant.id, "spring")
            assert found.spent + found.reserved <= Decimal("10.00")
        return True

    with ThreadPoolExecutor(16) as pool:
        paid = sum(pool.map(spend, range(200)))
    with database.transaction() as session:
        found = ledger.standing(session, tenant.id, "spring")
    assert found.reserved == 0
    assert Decimal("9.50") < found.spent <= Decimal("10.00")
    assert 140 <= paid < 200
    assert_balanced(database)
