"""Two faults that the simulator found in the real farm; mutants keep the walks able to see them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest
from fastapi import FastAPI
from psycopg import sql
from sqlalchemy import text
from starlette.testclient import TestClient

from api.main import create_app
from fluxfarm.errors import StoreUnavailable
from fluxfarm.settings import Settings
from storage.database import Database, connect
from storage.listening import Notice
from storage.objects import job_prefix, make_store
from storage.records import Tenant
from storage.repository import attempts
from storage.repository.events import JOB_STOPPED
from tests.api.samples import Hand, body
from tests.making import make_job, must_claim
from workers.cleaning import Cleaner
from workers.leases import LeaseKeeper
from workers.sweeping import LOST, POISON


@contextmanager
def stop_notices(database: Database) -> Iterator[list[Notice]]:
    """What a worker that listens is told; filled when the block ends, as by a listener that comes late."""
    heard: list[Notice] = []
    with connect(database.url) as connection:
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(JOB_STOPPED)))
        yield heard
        heard += [Notice(one.channel, one.payload) for one in connection.notifies(timeout=1.0, stop_after=1)]


def test_a_late_notice_for_a_lost_attempt_does_not_stop_the_next_one(database: Database, tenant: Tenant) -> None:
    job = make_job(database, tenant)
    must_claim(database, job.uuid)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET lease_expires_at = now() - interval '1 second'"))
    with stop_notices(database) as heard:
        with database.transaction() as session:
            assert attempts.expire(session, max_attempts=3, poison=POISON, lost=LOST) == [job.uuid]
        second = must_claim(database, job.uuid)
    assert len(heard) == 1
    keeper = LeaseKeeper(database, lease=30.0, renewal=10.0, beat=lambda: None)
    held = keeper.hold(second, claimed_at=1e12)
    keeper._hear(heard[0])
    assert held.stopped is None


def test_an_erasure_that_the_store_refused_is_done_later(
    settings: Settings, database: Database, api_key: str, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(settings)
    app: FastAPI = create_app(settings)
    with TestClient(app, headers={"API-KEY": api_key}, raise_server_exceptions=False) as api:
        uuid = UUID(api.post("/v1/jobs", json=body()).json()["aiRecord"]["uuid"])
        hand = Hand(database, store)
        hand.finish(hand.claim(uuid))

        def refuse(prefix: str) -> None:
            raise StoreUnavailable(f"The object store went away before it heard of {prefix}.")

        with monkeypatch.context() as outage:
            outage.setattr(app.state.farm.store, "delete_prefix", refuse)
            api.delete(f"/v1/jobs/{uuid}")
        api.delete(f"/v1/jobs/{uuid}")  # a careful caller tries again
    assert list(store.keys(job_prefix(tenant.id, uuid))) != []
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE erasures SET erased_at = now() - interval '1 hour'"))
    Cleaner(settings, database, store).clean()
    left = list(store.keys(job_prefix(tenant.id, uuid)))
    store.close()
    assert left == []
