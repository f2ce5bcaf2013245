"""What is read once a second by everybody who looks: it must not grow with what is over."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy import TextClause, text

from fluxfarm.jobs import Lane
from storage.database import Database
from storage.records import Tenant
from storage.repository import gauges, overview
from tests.making import claim, make_job
from tests.storage.test_fairness import fill

OVER = 5_000


@pytest.mark.parametrize("whose", ["all tenants", "one tenant"])
def test_what_is_open_is_read_without_what_is_over(database: Database, tenant: Tenant, whose: str) -> None:
    fill(database, tenant, OVER)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET status = 'SUCCESS', finished_at = now()"))
    _, postponed, running = (make_job(database, tenant, lane=Lane.BULK) for _ in range(3))
    assert claim(database, running.uuid)
    with database.engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET run_after = now() + interval '1 hour' WHERE uuid = :uuid"), {"uuid": postponed.uuid}
        )
        connection.execute(text("ANALYZE jobs"))
    tenant_id = tenant.id if whose == "one tenant" else None
    read_without_scan(database, overview.OPEN, {"tenant_id": tenant_id})
    read_without_scan(database, gauges.OPEN_JOBS, {})
    with database.transaction() as session:
        (found,) = overview.open_jobs(session, tenant_id)
        states = {one.state: one.jobs for one in gauges.standing(session).jobs}
    assert (found.queued, found.running) == (2, 1)
    assert states == {"QUEUED": 2, "RUNNING": 1}


def read_without_scan(database: Database, query: TextClause, asked: dict[str, UUID | None]) -> None:
    with database.engine.begin() as connection:
        plan = "\n".join(row[0] for row in connection.execute(text("EXPLAIN " + query.text), asked))
    assert "Seq Scan on jobs" not in plan, plan
    assert {name for name in ("ix_jobs_ready", "ix_jobs_postponed", "ix_jobs_lease") if name not in plan} == set(), plan
