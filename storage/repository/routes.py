"""What is known when a job is routed, and the moving of jobs whose workers are gone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from fluxfarm.jobs import JobState
from storage.queue import REMOTE_QUEUE
from storage.records import Attempt
from storage.repository import workers
from storage.repository.events import JOB_CHANGED
from storage.repository.workers import PRESENT

#: failures that say something of the provider, not of the request
ITS_FAULT: Final = ("provider_busy", "provider_failed", "provider_account", "result_lost", "outcome_unknown")

LATELY: Final = text(
    """
    SELECT provider, model,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM ended_at - started_at))
               FILTER (WHERE status = 'SUCCESS') AS seconds,
           count(*) FILTER (WHERE status = 'SUCCESS') AS good,
           count(*) FILTER (WHERE error ->> 'code' = ANY (:faults)) AS bad
      FROM attempts
     WHERE started_at > now() - interval '1 hour' AND ended_at IS NOT NULL AND provider <> 'local' AND model IS NOT NULL
     GROUP BY provider, model
    """
)
#: one probe of the index ix_jobs_movable per queue, however many jobs wait
STRANDED: Final = text(
    f"""
    WITH RECURSIVE queues AS (
        (SELECT queue FROM jobs WHERE status = 'QUEUED' AND remote ORDER BY queue LIMIT 1)
        UNION ALL
        SELECT (SELECT following.queue FROM jobs AS following
                 WHERE following.status = 'QUEUED' AND following.remote AND following.queue > queues.queue
                 ORDER BY following.queue LIMIT 1)
          FROM queues WHERE queues.queue IS NOT NULL
    )
    SELECT queue FROM queues
     WHERE queue <> :remote_queue
       AND NOT EXISTS (SELECT FROM workers
                        WHERE heartbeat_at > now() - make_interval(secs => :alive)
                          AND queues.queue = ANY (workers.queues) AND {PRESENT})
    """  # noqa: S608 - no value of anybody is in it
)
MOVE: Final = text(
    """
    WITH chosen AS (
        SELECT uuid FROM jobs WHERE queue = ANY (:queues) AND status = 'QUEUED' AND remote
         ORDER BY queue, seq LIMIT :batch FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs SET queue = :remote_queue, dispatched_at = NULL, run_after = NULL
      FROM chosen WHERE jobs.uuid = chosen.uuid
    RETURNING pg_notify(:channel, jobs.uuid::text)
    """
)


def lately(session: Session) -> Mapping[tuple[str, str], tuple[float | None, float | None]]:
    """Seconds in the middle and the share of successes of the last hour, by provider and model."""
    found: dict[tuple[str, str], tuple[float | None, float | None]] = {}
    for row in session.execute(LATELY, {"faults": list(ITS_FAULT)}):
        calls = row.good + row.bad
        seconds = None if row.seconds is None else float(row.seconds)
        found[row.provider, row.model] = seconds, row.good / calls if calls else None
    return found


def failures(session: Session, job: UUID) -> dict[str, int]:
    """How often each provider has failed at the job; an attempt whose worker died is nobody's failure."""
    rows = session.execute(
        select(Attempt.provider, func.count())
        .where(
            Attempt.job_uuid == job,
            Attempt.status == JobState.FAILED,
            Attempt.error["code"].astext != "worker_lost",
        )
        .group_by(Attempt.provider)
    )
    return dict(rows.all())


def stranded(session: Session) -> set[str]:
    """Queues of local workers where a job waits that may leave, and no worker's process is there."""
    return set(session.scalars(STRANDED, {"remote_queue": REMOTE_QUEUE, "alive": workers.ALIVE}))


def move(session: Session, queues: Collection[str], batch: int = 500) -> int:
    """Send up to ``batch`` jobs of these queues that may leave to the remote workers."""
    parameters = {"queues": list(queues), "batch": batch, "remote_queue": REMOTE_QUEUE, "channel": JOB_CHANGED}
    return len(session.execute(MOVE, parameters).all())
