"""Polls by the bare driver: the same jobs as the ORM's, and nobody waits for a server that is silent or gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import inspect

from fluxfarm.airecord import Problem
from fluxfarm.errors import DatabaseUnavailable, Forbidden, NotFound, Unauthorized
from storage import lines
from storage.database import Database, libpq_url
from storage.polls import Polls
from storage.records import Attempt, Base, Image, Job, Tenant
from storage.repository import attempts, tenants
from storage.repository.attempts import Outcome
from storage.repository.tenants import Caller
from tests.faults.wires import Wire
from tests.making import make_job, must_claim, read_job

BROKE = Problem(code="render_failed", message="It broke.", retryable=True)
Found = TypeVar("Found")


def polling(url: SecretStr, steps: Callable[[Polls], Coroutine[Any, Any, Found]]) -> Found:
    async def run() -> Found:
        ours = Polls(url)
        try:
            return await steps(ours)
        finally:
            await ours.close()

    return asyncio.run(run())


def anybody(_key: Caller) -> None:
    """Every key may read."""


def values(row: Base, kind: type[Base]) -> dict[str, Any]:
    names = [column.key for column in inspect(kind).column_attrs]
    return {name: (type(getattr(row, name)), getattr(row, name)) for name in names}


def finished(database: Database, tenant: Tenant) -> Job:
    """A job with everything that a job can have: a failed attempt, one that came through, and a picture."""
    job = make_job(database, tenant, campaign="spring", tags=("a", "b"), prompt_object={"prompt": "東京 🗼", "n": 1.5})
    first = must_claim(database, job.uuid)
    with database.transaction() as session:
        attempts.fail(session, first, BROKE, max_attempts=3)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET run_after = now()")
    second = must_claim(database, job.uuid)
    picture = {
        "n": 0,
        "object_key": f"t/x/{job.uuid}/2/0.webp",
        "seed": 2**63 - 1,
        "width": 64,
        "height": 32,
        "content_type": "image/webp",
        "size_bytes": 10,
        "sha256": "0" * 64,
    }
    with database.transaction() as session:
        attempts.finish(session, second, Outcome(images=[picture], timings={"render": 0.5}, model_revision="a" * 40))
    return read_job(database, job)


def test_a_poll_reads_what_the_orm_loads(database: Database, tenant: Tenant, api_key: str) -> None:
    loaded = finished(database, tenant)
    found, key = polling(database.url, lambda ours: ours.read_as(api_key, loaded.uuid, anybody))
    assert key.tenant_id == tenant.id
    assert values(found, Job) == values(loaded, Job)
    assert [values(one, Attempt) for one in found.attempts] == [values(one, Attempt) for one in loaded.attempts]
    assert [values(one, Image) for one in found.images] == [values(one, Image) for one in loaded.images]
    assert (len(found.attempts), len(found.images)) == (2, 1)


def test_only_the_owner_polls_and_only_with_a_live_key(database: Database, tenant: Tenant, api_key: str) -> None:
    job = make_job(database, tenant)
    with database.transaction() as session:
        stranger = tenants.ensure_tenant(session, "stranger")
        _, foreign = tenants.create_key(session, stranger.id, "theirs", ["read"])

    def refuse(_key: Caller) -> None:
        raise Forbidden("Not with this scope.")

    def asked(secret: str, uuid: UUID, check: Callable[[Caller], None] = anybody) -> None:
        polling(database.url, lambda ours: ours.read_as(secret, uuid, check))

    for secret, uuid in ((foreign, job.uuid), (api_key, uuid4())):
        with pytest.raises(NotFound):
            asked(secret, uuid)
    for unknown in ("ff_live_nobodys", api_key + "x", ""):
        with pytest.raises(Unauthorized):
            asked(unknown, job.uuid)
    with pytest.raises(Forbidden):
        asked(api_key, uuid4(), refuse)


def test_no_poll_waits_for_a_silent_database(
    wire: Wire, over_wire: SecretStr, database: Database, tenant: Tenant, api_key: str
) -> None:
    job = make_job(database, tenant)

    async def steps(ours: Polls) -> None:
        await ours.read_as(api_key, job.uuid, anybody)
        wire.block()
        for _ in range(2):  # on that connection, then on a new one
            began = time.monotonic()
            with pytest.raises(DatabaseUnavailable, match="nothing was changed"):
                await ours.read_as(api_key, job.uuid, anybody)
            assert time.monotonic() - began < 5.0
        wire.clear()
        await ours.read_as(api_key, job.uuid, anybody)

    polling(over_wire, steps)


def test_a_database_that_began_anew_is_asked_again(database: Database, tenant: Tenant, api_key: str) -> None:
    job = make_job(database, tenant)

    async def steps(ours: Polls) -> None:
        await asyncio.gather(*(ours.read(tenant.id, job.uuid) for _ in range(3 * lines.CONNECTIONS)))
        with psycopg.connect(libpq_url(database.url), autocommit=True) as other:
            ended = other.execute(
                "SELECT count(pg_terminate_backend(pid, 2000)) FROM pg_stat_activity"
                " WHERE query LIKE 'SELECT jobs.uuid%' AND datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchone()
        assert ended is not None
        assert ended[0] >= 2
        await ours.read_as(api_key, job.uuid, anybody)

    polling(database.url, steps)


def test_a_poll_that_finds_no_connection_is_told_so(
    database: Database, tenant: Tenant, api_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(database, tenant)
    monkeypatch.setattr(lines, "CONNECTIONS", 1)
    monkeypatch.setattr(lines, "POOL_TIMEOUT", 0.1)

    async def steps(ours: Polls) -> None:
        with database.engine.begin() as connection:
            connection.exec_driver_sql("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
            first = asyncio.create_task(ours.read_as(api_key, job.uuid, anybody))
            await asyncio.sleep(0.05)
            with pytest.raises(DatabaseUnavailable, match="in use"):
                await ours.read(tenant.id, job.uuid)
        found, _ = await first
        assert found.uuid == job.uuid

    polling(database.url, steps)
