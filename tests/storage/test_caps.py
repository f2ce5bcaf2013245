"""Caps on what a tenant has running: what is over them waits, and nobody else does."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from sqlalchemy import text, update

from fluxfarm.jobs import JobState
from fluxfarm.settings import Settings
from storage.database import Database
from storage.dispatcher import Dispatcher
from storage.queue import Queue
from storage.records import Job, Tenant
from storage.repository import dispatch, explain, jobs
from storage.repository.turns import Claim
from tests.making import QUEUE, take_alone
from tests.storage.test_fairness import fill, make_tenant, take

OTHER_QUEUE = "local.other"


def cap(database: Database, tenant: Tenant, most: int | None) -> None:
    with database.transaction() as session:
        session.execute(update(Tenant).where(Tenant.id == tenant.id).values(max_running=most))


def running(database: Database) -> Counter[UUID]:
    with database.engine.connect() as connection:
        found = connection.execute(text("SELECT tenant_id FROM jobs WHERE status = 'RUNNING'"))
        return Counter(found.scalars())


def test_what_is_over_the_cap_waits_and_the_others_do_not(database: Database) -> None:
    capped, free = make_tenant(database, "capped", "100"), make_tenant(database, "free")
    cap(database, capped, 2)
    fill(database, capped, 10)
    fill(database, free, 3)
    claims = [take(database) for _ in range(6)]
    assert running(database) == {capped.id: 2, free.id: 3}
    assert claims[-1] is None
    cap(database, capped, 3)
    assert take(database) is not None
    cap(database, capped, None)
    assert all(take(database) for _ in range(7))


def test_a_job_that_ends_makes_room(database: Database) -> None:
    tenant = make_tenant(database, "capped")
    cap(database, tenant, 1)
    fill(database, tenant, 3)
    first = take(database)
    assert first is not None
    assert take(database) is None
    with database.transaction() as session:
        session.execute(
            update(Job).where(Job.uuid == first.uuid).values(status=JobState.SUCCESS, lease_expires_at=None)
        )
    assert take(database) is not None


def test_claims_on_two_queues_at_once_stay_within_the_cap(database: Database) -> None:
    tenant = make_tenant(database, "capped")
    cap(database, tenant, 3)
    fill(database, tenant, 40)
    with database.transaction() as session:
        half = session.execute(text("SELECT uuid FROM jobs ORDER BY seq LIMIT 20")).scalars().all()
        session.execute(update(Job).where(Job.uuid.in_(half)).values(queue=OTHER_QUEUE))

    def claim(number: int) -> Claim | None:
        with database.transaction() as session:
            return take_alone(session, (QUEUE, OTHER_QUEUE)[number % 2])

    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(claim, range(24)))
    assert sum(one is not None for one in claims) == 3
    assert running(database) == {tenant.id: 3}


def test_tickets_go_to_those_who_may_start(database: Database, settings: Settings) -> None:
    capped, free = make_tenant(database, "capped", "100"), make_tenant(database, "free")
    cap(database, capped, 1)
    fill(database, capped, 50)
    fill(database, free, 50)
    queue = Queue(settings)
    dispatcher = Dispatcher(database, queue, window=2.0)
    assert dispatcher.dispatch(QUEUE) == 4
    with database.engine.connect() as connection:
        sent = Counter(connection.execute(text("SELECT tenant_id FROM jobs WHERE dispatched_at IS NOT NULL")).scalars())
    assert sent == {capped.id: 1, free.id: 3}
    queue.close()


def test_a_ticket_that_a_cap_made_useless_is_given_back(database: Database) -> None:
    tenant = make_tenant(database, "capped")
    cap(database, tenant, 1)
    fill(database, tenant, 3)
    with database.transaction() as session:
        uuids = session.execute(text("SELECT uuid FROM jobs ORDER BY seq")).scalars().all()
        session.execute(update(Job).where(Job.uuid.in_(uuids[:2])).values(dispatched_at=text("now()")))
    first = take(database, uuids[0])
    assert first is not None
    assert first.uuid == uuids[0]
    assert take(database, uuids[1]) is None
    with database.transaction() as session:
        assert dispatch.in_flight(session, QUEUE) == 0
        assert explain.reached_cap(session, jobs.read(session, tenant.id, uuids[1])) == 1
        assert dispatch.pick(session, QUEUE, 4) == []
