from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text, update

from fluxfarm.jobs import JobState, Lane
from storage import fairness
from storage.database import Database
from storage.fairness import Campaign, Flow
from storage.records import Job, Tenant
from storage.repository import attempts, dispatch, fair, tenants
from storage.repository.turns import Claim
from tests.making import QUEUE, make_job, read_job, take_alone


def make_tenant(database: Database, name: str, weight: str = "1") -> Tenant:
    with database.transaction() as session:
        tenant = tenants.ensure_tenant(session, name)
        session.execute(update(Tenant).where(Tenant.id == tenant.id).values(weight=Decimal(weight)))
        return tenant


def fill(
    database: Database, tenant: Tenant, count: int, *, seconds: float = 1.0, campaign: str = "", lane: int = 2
) -> None:
    """Many queued jobs in one statement, as a campaign would bring them."""
    with database.engine.begin() as connection:
        connection.execute(
            text(
                """INSERT INTO jobs (uuid, tenant_id, type, model, lane, queue, provider, request, prompt_object, tags,
                                     steps, campaign, gpu_seconds)
                   SELECT gen_random_uuid(), :tenant, 'IMAGE_GENERATOR', 'm', :lane, :queue, 'auto', :request, '{}',
                          '{}', 1, :campaign, :seconds FROM generate_series(1, :count)"""
            ),
            {
                "tenant": tenant.id,
                "lane": lane,
                "queue": QUEUE,
                "count": count,
                "campaign": campaign,
                "seconds": seconds,
                "request": (
                    '{"type": "IMAGE_GENERATOR", "model": "fluxfarm/flux-2-klein-small", "prompt": "a", "width": 64,'
                    ' "height": 64, "seeds": [1], "steps": 1, "guidance": 3, "output_format": "png",'
                    ' "output_quality": 80}'
                ),
            },
        )


def take(database: Database, ticket: UUID | None = None) -> Claim | None:
    with database.transaction() as session:
        return take_alone(session, ticket=ticket)


def order(database: Database, count: int) -> list[UUID]:
    """Whose jobs are taken, in turn."""
    taken = (take(database) for _ in range(count))
    return [claim.tenant_id for claim in taken if claim is not None]


def test_two_tenants_share_by_cost_not_by_count(database: Database) -> None:
    large, small = make_tenant(database, "large"), make_tenant(database, "small")
    fill(database, large, 60, seconds=4.0)
    fill(database, small, 60, seconds=1.0)
    shares = Counter(order(database, 50))
    assert shares == {large.id: 10, small.id: 40}


def test_weights_decide_the_share(database: Database) -> None:
    double, single = make_tenant(database, "double", "2"), make_tenant(database, "single")
    fill(database, double, 60)
    fill(database, single, 60)
    assert Counter(order(database, 30)) == {double.id: 20, single.id: 10}


def test_a_new_tenant_starts_level_and_an_idle_one_saved_nothing(database: Database) -> None:
    first, second = make_tenant(database, "first"), make_tenant(database, "second")
    fill(database, first, 200)
    assert set(order(database, 50)) == {first.id}
    fill(database, second, 100)
    turns = order(database, 20)
    assert turns[0] == second.id or turns[1] == second.id, "it need not wait for the others to catch up"
    assert abs(turns.count(first.id) - turns.count(second.id)) <= 2, "and it has no 50 seconds of credit"


def test_campaigns_of_one_tenant_take_turns(database: Database) -> None:
    tenant = make_tenant(database, "agency")
    fill(database, tenant, 50, campaign="spring")
    fill(database, tenant, 50, campaign="summer")
    with database.transaction() as session:
        upcoming = fair.upcoming(session, QUEUE, 10)
        names = [session.get_one(Job, uuid).campaign for uuid in upcoming]
    assert Counter(names) == {"spring": 5, "summer": 5}
    assert names[0] != names[1]


def test_a_person_does_not_wait_behind_a_campaign(database: Database) -> None:
    """All tickets at the broker are for the bulk jobs of A; B's job is the very next one all the same."""
    bulk, person = make_tenant(database, "bulk"), make_tenant(database, "person")
    fill(database, bulk, 10_000)
    with database.transaction() as session:
        tickets = dispatch.pick(session, QUEUE, 6)
    assert take(database, tickets[0])
    mine = make_job(database, person, lane=Lane.INTERACTIVE)
    claim = take(database, tickets[1])
    assert claim is not None
    assert claim.uuid == mine.uuid


def test_even_in_the_same_lane_a_newcomer_waits_for_one_render(database: Database) -> None:
    bulk, person = make_tenant(database, "bulk"), make_tenant(database, "person")
    fill(database, bulk, 10_000, lane=0)
    order(database, 20)
    make_job(database, person, lane=Lane.INTERACTIVE)
    assert person.id in order(database, 2)


def test_a_ticket_spent_on_another_job_is_sent_again(database: Database) -> None:
    tenant = make_tenant(database, "tenant")
    first = make_job(database, tenant, lane=Lane.BULK)
    with database.transaction() as session:
        assert dispatch.pick(session, QUEUE, 1) == [first.uuid]
    urgent = make_job(database, tenant)
    claim = take(database, first.uuid)
    assert claim is not None
    assert claim.uuid == urgent.uuid
    assert read_job(database, first).dispatched_at is None
    with database.transaction() as session:
        assert dispatch.in_flight(session, QUEUE) == 0
        assert dispatch.pick(session, QUEUE, 1) == [first.uuid]


def test_an_estimate_is_replaced_by_what_it_took(database: Database) -> None:
    wrong, right = make_tenant(database, "wrong"), make_tenant(database, "right")
    fill(database, wrong, 30, seconds=1.0)
    fill(database, right, 30, seconds=1.0)
    turns: Counter[UUID] = Counter()
    for _ in range(24):
        claim = take(database)
        assert claim is not None
        turns[claim.tenant_id] += 1
        took = 3.0 if claim.tenant_id == wrong.id else 1.0
        with database.transaction() as session:
            outcome = attempts.Outcome(
                images=[], timings={"encode_prompt": took / 2, "render": took / 2}, model_revision="r"
            )
            assert attempts.finish(session, claim, outcome)
    assert turns[wrong.id] == pytest.approx(6, abs=1)


def test_workers_side_by_side_take_every_job_once(database: Database) -> None:
    for name in ("a", "b", "c"):
        fill(database, make_tenant(database, name), 20)
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: take(database), range(70)))
    uuids = [claim.uuid for claim in claims if claim is not None]
    assert len(uuids) == len(set(uuids)) == 60


def test_retries_deadlines_and_cancelled_jobs_do_not_count(database: Database) -> None:
    tenant = make_tenant(database, "tenant")
    waiting, late, over, good = (make_job(database, tenant) for _ in range(4))
    with database.engine.begin() as connection:
        for column, job in (("run_after = now() + interval '1 hour'", waiting), ("deadline = now()", late)):
            connection.execute(text(f"UPDATE jobs SET {column} WHERE uuid = :uuid"), {"uuid": job.uuid})
        connection.execute(update(Job).where(Job.uuid == over.uuid).values(status=JobState.CANCELED))
    claim = take(database)
    assert claim is not None
    assert claim.uuid == good.uuid
    assert take(database) is None


def test_the_cost_of_a_turn_does_not_grow_with_the_queue(database: Database) -> None:
    """The plan, not the clock: no scan, no sort over the waiting jobs."""
    tenant = make_tenant(database, "tenant")
    fill(database, tenant, 20_000)
    with database.engine.begin() as connection:
        connection.execute(text("ANALYZE jobs"))
        plan = "\n".join(
            row[0]
            for row in connection.execute(text("EXPLAIN (ANALYZE, BUFFERS) " + fair.FLOWS.text), {"queue": QUEUE})
        )
        assert "Seq Scan on jobs" not in plan
        assert "ix_jobs_ready" in plan
    started = time.monotonic()
    assert take(database) is not None
    assert time.monotonic() - started < 1.0


@given(
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 4.0]), min_size=2, max_size=5),
    costs=st.lists(st.floats(0.1, 10.0), min_size=2, max_size=5),
)
def test_over_time_nobody_is_further_ahead_than_one_job(weights: list[float], costs: list[float]) -> None:
    flows = [Flow(0, fairness.Tenant(UUID(int=n), weight), Campaign("")) for n, weight in enumerate(weights)]
    clock = 0.0
    for turn in range(200):
        clock = fairness.advance(flows, clock)
        flow = fairness.choose(flows, clock)
        assert flow is not None
        fairness.charge(flow, flows, clock, costs[turn % len(costs)])
    times = [flow.tenant.time for flow in flows]
    assert max(times) - min(times) <= max(costs) / min(weights) + 1e-6
