"""The ledger balances, and no number of callers passes a cap."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from fluxfarm.airecord import Problem
from fluxfarm.errors import BudgetExceeded
from fluxfarm.jobs import JobState
from storage.database import Database
from storage.records import Tenant
from storage.repository import attempts, jobs, ledger
from storage.repository.ledger import Standing
from tests.making import make_job, must_claim
from tests.money import assert_balanced

CENT = Decimal("0.01")
STOP = Problem(code="canceled", message="The caller stopped it.", retryable=False)
BROKEN = Problem(code="render_failed", message="It broke.", retryable=False)


def reserve(database: Database, tenant: Tenant, amount: Decimal, campaign: str = "", job: UUID | None = None) -> bool:
    try:
        with database.transaction() as session:
            ledger.reserve(session, tenant.id, campaign, job or uuid4(), amount)
    except BudgetExceeded:
        return False
    return True


def standing(database: Database, tenant: Tenant, campaign: str = "") -> Standing:
    with database.transaction() as session:
        return ledger.standing(session, tenant.id, campaign)


def cap(database: Database, tenant: Tenant, amount: Decimal | None, campaign: str = "") -> None:
    with database.transaction() as session:
        ledger.set_cap(session, tenant.id, campaign, amount)


def test_fifty_callers_at_once_reserve_to_the_cap_and_not_a_cent_beyond(database: Database, tenant: Tenant) -> None:
    cap(database, tenant, Decimal("0.30"))
    cap(database, tenant, Decimal("0.20"), "spring")
    with ThreadPoolExecutor(12) as pool:
        done = list(pool.map(lambda n: reserve(database, tenant, CENT, "spring" if n % 2 else ""), range(100)))
    assert sum(done) == 30
    assert standing(database, tenant).reserved == Decimal("0.30")
    assert standing(database, tenant).left == 0
    assert standing(database, tenant, "spring").reserved <= Decimal("0.20")
    assert_balanced(database)


def test_what_one_cap_refuses_is_taken_from_none(database: Database, tenant: Tenant) -> None:
    cap(database, tenant, Decimal("0.05"), "spring")
    assert reserve(database, tenant, Decimal("0.05"), "spring")
    with pytest.raises(BudgetExceeded, match=r"'spring' has 0 USD left of 0\.05"), database.transaction() as session:
        ledger.reserve(session, tenant.id, "spring", uuid4(), CENT)
    assert not reserve(database, tenant, CENT, "spring")
    assert standing(database, tenant).reserved == Decimal("0.05")
    assert reserve(database, tenant, CENT)
    cap(database, tenant, None, "spring")
    assert reserve(database, tenant, CENT, "spring")
    assert_balanced(database)


@pytest.mark.parametrize("end", ["finish", "fail", "cancel", "erase"])
def test_every_end_of_a_job_gives_back_what_it_reserved(database: Database, tenant: Tenant, end: str) -> None:
    job = make_job(database, tenant, campaign="spring")
    assert reserve(database, tenant, Decimal("0.10"), "spring", job.uuid)
    claimed = must_claim(database, job.uuid)
    outcome = attempts.Outcome(images=[], timings={"render": 0.1}, model_revision="test", cost=Decimal("0.03"))
    ends: dict[str, Callable[..., object]] = {
        "finish": lambda session: attempts.finish(session, claimed, outcome),
        "fail": lambda session: attempts.fail(session, claimed, BROKEN, max_attempts=3),
        "cancel": lambda session: jobs.cancel(session, tenant.id, job.uuid, STOP),
        "erase": lambda session: jobs.erase(session, tenant.id, job.uuid),
    }
    with database.transaction() as session:
        ends[end](session)
    spent = Decimal("0.03") if end == "finish" else Decimal(0)
    for campaign in ("", "spring"):
        assert standing(database, tenant, campaign) == Standing(None, Decimal(0), spent)
    assert_balanced(database)


def test_a_retry_keeps_what_is_reserved_and_a_close_twice_gives_back_once(database: Database, tenant: Tenant) -> None:
    job = make_job(database, tenant)
    assert reserve(database, tenant, CENT, job=job.uuid)
    assert reserve(database, tenant, CENT)
    again = BROKEN.model_copy(update={"retryable": True})
    with database.transaction() as session:
        assert attempts.fail(session, must_claim(database, job.uuid), again, max_attempts=3) is JobState.QUEUED
    assert standing(database, tenant).reserved == 2 * CENT

    def close(_: int) -> None:
        with database.transaction() as session:
            ledger.close(session, job.uuid)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(close, range(16)))
    assert standing(database, tenant).reserved == CENT
    assert_balanced(database)


def test_a_job_without_money_leaves_no_entry(database: Database, tenant: Tenant) -> None:
    job = make_job(database, tenant)
    with database.transaction() as session:
        ledger.reserve(session, tenant.id, "", job.uuid, Decimal(0))
        jobs.cancel(session, tenant.id, job.uuid, STOP)
        assert session.execute(text("SELECT count(*) FROM ledger_entries")).scalar() == 0
        assert session.execute(text("SELECT count(*) FROM balances")).scalar() == 0
