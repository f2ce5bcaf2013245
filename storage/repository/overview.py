"""The farm at a glance: what waits, who renders what, and how the last hours went.

``tenant_id`` None is for operators, who see all tenants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from fluxfarm.jobs import Lane
from storage.repository.gauges import NOT_OVER

OPEN: Final = text(
    f"""
    SELECT jobs.model, jobs.lane, tenants.name AS tenant,
           count(*) FILTER (WHERE status = 'QUEUED') AS queued, count(*) FILTER (WHERE status = 'RUNNING') AS running,
           coalesce(extract(epoch FROM now() - min(jobs.created_at) FILTER (WHERE status = 'QUEUED')), 0) AS oldest
      FROM jobs JOIN tenants ON tenants.id = jobs.tenant_id
     WHERE {NOT_OVER} AND (CAST(:tenant_id AS uuid) IS NULL OR tenant_id = :tenant_id)
     GROUP BY jobs.model, jobs.lane, tenants.name ORDER BY jobs.lane, jobs.model, tenants.name
    """  # noqa: S608 - no value is put into the text
)
RENDERS: Final = text(
    """
    SELECT worker_id, uuid, tenant_id, step, steps
      FROM jobs WHERE status = 'RUNNING' AND worker_id IS NOT NULL ORDER BY started_at
    """
)
#: the index ix_attempts_started_at (BRIN) finds the window; an attempt that began before it is not counted
PACE: Final = text(
    """
    SELECT least(:bins - 1, floor(extract(epoch FROM now() - attempts.ended_at) / :width))::int AS back,
           coalesce(sum(cardinality(attempts.seeds)) FILTER (WHERE attempts.status = 'SUCCESS'), 0) AS pictures,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM attempts.started_at - jobs.created_at))
               FILTER (WHERE attempts.number = 1) AS wait
      FROM attempts JOIN jobs ON jobs.uuid = attempts.job_uuid
     WHERE attempts.started_at > now() - make_interval(secs => :bins * :width) AND attempts.ended_at IS NOT NULL
       AND (CAST(:tenant_id AS uuid) IS NULL OR jobs.tenant_id = :tenant_id)
     GROUP BY 1
    """
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenJobs:
    """The jobs of one model, lane and tenant that are not over."""

    model: str
    lane: Lane
    tenant: str
    queued: int
    running: int
    oldest: float  #: seconds that the first of those in the queue has waited


@dataclass(frozen=True, slots=True, kw_only=True)
class Render:
    """What a worker renders now."""

    worker_id: UUID
    uuid: UUID
    tenant_id: UUID
    step: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """A span of time: pictures made, and seconds that a job waited in the middle (None: no job)."""

    pictures: int = 0
    wait: float | None = None


def open_jobs(session: Session, tenant_id: UUID | None) -> list[OpenJobs]:
    """What is not over; the cost grows with what is open, never with what is over."""
    lanes = list(Lane)
    return [
        OpenJobs(
            model=row.model,
            lane=lanes[row.lane],
            tenant=row.tenant,
            queued=row.queued,
            running=row.running,
            oldest=float(row.oldest),
        )
        for row in session.execute(OPEN, {"tenant_id": tenant_id})
    ]


def renders(session: Session) -> list[Render]:
    """What every worker has in hand, of all tenants: show a job to its own tenant only."""
    return [Render(**row) for row in session.execute(RENDERS).mappings()]


def pace(session: Session, tenant_id: UUID | None, *, bins: int, width: int) -> list[Bin]:
    """The last ``bins`` spans of ``width`` seconds, the oldest first."""
    found = [Bin() for _ in range(bins)]
    for row in session.execute(PACE, {"tenant_id": tenant_id, "bins": bins, "width": width}):
        wait = None if row.wait is None else max(0.0, float(row.wait))
        found[bins - 1 - max(0, row.back)] = Bin(pictures=int(row.pictures), wait=wait)
    return found
