"""How long renders of a queue took against what was expected, and what share of the workers a tenant has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

RECENT: Final = 500  #: jobs that are looked at, the newest of the queue

PACE: Final = text(
    """
    WITH recent AS (
        SELECT uuid, gpu_seconds FROM jobs
         WHERE queue = :queue AND status = 'SUCCESS' AND gpu_seconds > 0 AND finished_at > now() - interval '7 days'
         ORDER BY finished_at DESC LIMIT :recent
    ),
    took AS (
        SELECT (coalesce((attempt.timings ->> 'encode_prompt')::float, 0) + (attempt.timings ->> 'render')::float)
               / recent.gpu_seconds AS pace
          FROM recent JOIN attempts AS attempt ON attempt.job_uuid = recent.uuid AND attempt.status = 'SUCCESS'
         WHERE attempt.timings ? 'render'
    )
    SELECT count(*) AS measured,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY pace) AS p50,
           percentile_cont(0.9) WITHIN GROUP (ORDER BY pace) AS p90
      FROM took
    """
)
OTHERS: Final = text(
    """
    SELECT coalesce(sum(weight), 0) AS others,
           (SELECT weight FROM tenants WHERE id = :tenant_id) AS own
      FROM tenants
     WHERE id <> :tenant_id
       AND EXISTS (SELECT FROM jobs WHERE queue = :queue AND status = 'QUEUED' AND run_after IS NULL
                                      AND jobs.lane <= :lane AND jobs.tenant_id = tenants.id)
    """
)
END: Final = text("SELECT now() + make_interval(secs => :p50) AS p50, now() + make_interval(secs => :p90) AS p90")


@dataclass(frozen=True, slots=True)
class Forecast:
    """When so many GPU-seconds will be done."""

    p50: datetime
    p90: datetime
    measured: int


def forecast(
    session: Session, *, tenant_id: UUID, queue: str, lane: int, workers: int, seconds: float
) -> Forecast | None:
    """When expected GPU-seconds will be done at the measured pace, with the tenant's share of the live workers.

    None: no worker is alive, or nothing was measured here in the last seven days. Other tenants count by weight when
    they have jobs waiting in this lane or a more urgent one now.
    """
    if not workers:
        return None
    pace = session.execute(PACE, {"queue": queue, "recent": RECENT}).one()
    if not pace.measured:
        return None
    weights = session.execute(OTHERS, {"tenant_id": tenant_id, "queue": queue, "lane": lane}).one()
    share = float(weights.own) / float(weights.own + weights.others)
    per_pace = seconds / (workers * share)
    row = session.execute(END, {"p50": pace.p50 * per_pace, "p90": pace.p90 * per_pace}).one()
    return Forecast(row.p50, row.p90, pace.measured)
