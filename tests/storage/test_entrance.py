"""Jobs that are stored on the event loop: the same rows as by a transaction, once each, and never two by one key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import uuid4

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import func, inspect, select, text

from fluxfarm.errors import DatabaseUnavailable, ExternalIdTaken, IdempotencyKeyReused, Unauthorized
from fluxfarm.jobs import Lane
from fluxfarm.routing import RoutePlan, Wish
from storage.database import Database, libpq_url
from storage.entrance import Entrance
from storage.records import IdempotencyKey, Job, Tenant
from storage.repository import jobs, tenants
from storage.repository.idempotency import First, Taken
from storage.repository.jobs import NewJob, Stored
from tests.faults.wires import Wire
from tests.making import QUEUE, make_request, read_job

Found = TypeVar("Found")
SOON = datetime(2100, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
#: the least that a job has, and the most
PLAIN: dict[str, Any] = {"prompt_object": {"prompt": "a lighthouse"}}
FULL: dict[str, Any] = {
    "lane": Lane.BULK,
    "priority": -3,
    "provider": "local",
    "campaign": "spring's",
    "tags": ("a", 'b "quoted" {}', "東京", "back\\slash", ""),
    "deadline": SOON,
    "external_id": "ours-1",
    "webhook_id": "wh_1",
    "traceparent": "00-1-2-01",
    "route": RoutePlan(wish=Wish(provider="local"), candidates=(), choice="local"),
    "prompt_object": {"z": 1, "a": [1.5, 1e300, 10**30, None, True], "prompt": "東京 🗼 \\u0041 \t \" ' %s", "n": {}},
}


def entering(database: Database, steps: Callable[[Entrance], Coroutine[Any, Any, Found]]) -> Found:
    async def run() -> Found:
        entrance = Entrance(database)
        try:
            return await steps(entrance)
        finally:
            await entrance.close()

    return asyncio.run(run())


def order(tenant: Tenant, **values: Any) -> NewJob:
    return NewJob(uuid=uuid4(), tenant_id=tenant.id, request=make_request(), queue=QUEUE, **(PLAIN | values))


def call(new: NewJob, key: str = "k", digest: bytes = b"same") -> Taken:
    return Taken(tenant_id=new.tenant_id, key=key, digest=digest, holder=new.uuid)


async def store(entrance: Entrance, new: NewJob, taken: Taken | None = None) -> Stored | First:
    return await entrance.store(new, taken, status_code=202, ttl=60)


def values(job: Job) -> dict[str, Any]:
    names = [column.key for column in inspect(Job).column_attrs if column.key not in {"uuid", "seq", "created_at"}]
    return {name: (type(getattr(job, name)), getattr(job, name)) for name in names}


def end_connections(database: Database) -> None:
    """Those that have stored a job."""
    with psycopg.connect(libpq_url(database.url), autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity"
            " WHERE query LIKE 'INSERT INTO jobs%' AND datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_what_is_told_of_a_row_is_what_arrives(tenant: Tenant) -> None:
    assert set(jobs.columns(order(tenant))) == set(jobs.TOLD)


@pytest.mark.parametrize("told", [PLAIN, FULL], ids=["plain", "full"])
@pytest.mark.parametrize("keyed", [False, True], ids=["bare", "keyed"])
def test_every_way_stores_the_same_row(database: Database, tenant: Tenant, told: dict[str, Any], keyed: bool) -> None:
    new = order(tenant, **told)
    made = entering(database, lambda entrance: store(entrance, new, call(new) if keyed else None))
    assert isinstance(made, Stored)
    here = read_job(database, made.job)
    assert values(here) == values(made.job)
    with database.transaction() as session:
        jobs.erase(session, tenant.id, new.uuid)
        jobs.create_many(session, [new])  # column by column, as SQLAlchemy sends them
    assert values(read_job(database, made.job)) == values(here)
    with database.transaction() as session:
        texts = session.scalars(select(Job.prompt_object)).all()
    assert [list(one) for one in texts] == [list(new.prompt_object)]  # in the caller's own order


def test_many_at_once_are_all_there_in_their_order(database: Database, tenant: Tenant) -> None:
    new = [order(tenant) for _ in range(120)]

    async def steps(entrance: Entrance) -> list[Stored | First]:
        return await asyncio.gather(*(store(entrance, one) for one in new))

    made = entering(database, steps)
    with database.transaction() as session:
        assert session.scalars(select(Job.uuid).order_by(Job.seq)).all() == [one.uuid for one in new]
        commits = session.scalar(text("SELECT count(DISTINCT xmin::text) FROM jobs")) or 0
    assert [one.job.uuid for one in made] == [one.uuid for one in new]
    assert commits <= 5


def test_one_that_cannot_be_stored_harms_nobody(database: Database, tenant: Tenant) -> None:
    taken = order(tenant, external_id="ours")
    new = [
        order(tenant, external_id="mine"),
        order(tenant, external_id="ours"),
        order(tenant, external_id="mine"),
        replace(order(tenant), priority=10**6),  # no smallint
        order(tenant),
    ]

    async def steps(entrance: Entrance) -> list[Stored | First | BaseException]:
        await store(entrance, taken)
        return await asyncio.gather(*(store(entrance, one) for one in new), return_exceptions=True)

    found = entering(database, steps)
    assert [type(one) for one in found] == [
        Stored,
        ExternalIdTaken,
        ExternalIdTaken,
        psycopg.errors.NumericValueOutOfRange,
        Stored,
    ]
    assert isinstance(found[1], ExternalIdTaken)
    assert found[1].job == taken.uuid
    with database.transaction() as session:
        assert set(session.scalars(select(Job.uuid))) == {taken.uuid, new[0].uuid, new[4].uuid}


def test_one_key_makes_one_job(database: Database, tenant: Tenant) -> None:
    first, others, again = order(tenant), [order(tenant) for _ in range(5)], order(tenant, external_id="ours")

    async def steps(entrance: Entrance) -> None:
        assert isinstance(await store(entrance, first, call(first)), Stored)
        for found in await asyncio.gather(*(store(entrance, one, call(one)) for one in others)):
            assert isinstance(found, First)
            assert (found.job.uuid, found.status_code) == (first.uuid, 202)
        with pytest.raises(IdempotencyKeyReused):
            await store(entrance, others[0], call(others[0], digest=b"other"))
        await store(entrance, order(tenant, external_id="ours"))
        with pytest.raises(ExternalIdTaken):
            await store(entrance, again, call(again, key="another"))

    entering(database, steps)
    with database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 2
        assert session.scalar(select(func.count()).select_from(IdempotencyKey)) == 1  # none for what was refused


def test_a_revoked_key_is_refused_at_once(database: Database, tenant: Tenant) -> None:
    with database.transaction() as session:
        key, secret = tenants.create_key(session, tenant.id, "theirs", ["render"])

    async def steps(entrance: Entrance) -> None:
        for caller in await asyncio.gather(*(entrance.caller(secret) for _ in range(20))):
            assert (caller.id, caller.tenant_id, caller.scopes) == (key.id, tenant.id, ["render"])
        with database.transaction() as session:
            tenants.revoke_key(session, tenant.id, key.id)
        for unknown in (secret, "ff_live_nobodys", ""):
            with pytest.raises(Unauthorized):
                await entrance.caller(unknown)

    entering(database, steps)


def test_a_database_that_began_anew_takes_the_next_job(
    database: Database, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def steps(entrance: Entrance) -> None:
        await store(entrance, order(tenant))
        end_connections(database)
        # At once nobody can know it before the job is sent, and whether it was stored cannot be known after.
        with pytest.raises(DatabaseUnavailable, match="not known"):
            await store(entrance, order(tenant))
        await store(entrance, order(tenant))
        end_connections(database)
        monkeypatch.setattr("storage.lines.REST", 0.0)  # it has rested, so it is asked first
        await store(entrance, order(tenant))

    entering(database, steps)
    with database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 3


def test_no_job_waits_for_a_silent_database(wire: Wire, over_wire: SecretStr, tenant: Tenant, api_key: str) -> None:
    far = Database(over_wire)

    async def steps(entrance: Entrance) -> None:
        await store(entrance, order(tenant))
        wire.block()
        began = time.monotonic()
        found = await asyncio.gather(
            entrance.caller(api_key), *(store(entrance, order(tenant)) for _ in range(3)), return_exceptions=True
        )
        assert [type(one) for one in found] == [DatabaseUnavailable] * 4
        assert time.monotonic() - began < 5.0
        wire.clear()
        await store(entrance, order(tenant))

    try:
        entering(far, steps)
    finally:
        far.close()
