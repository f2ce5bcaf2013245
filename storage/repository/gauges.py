"""How the farm stands, in numbers for Prometheus: what waits and runs, who works, what is to be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from fluxfarm.jobs import JobState, Lane
from storage.repository import workers

#: each of the three has a partial index, so that finished jobs, however many, cost nothing; said shorter, none would do
NOT_OVER: Final = """
    ((status = 'QUEUED' AND run_after IS NULL) OR (status = 'QUEUED' AND run_after IS NOT NULL) OR status = 'RUNNING')
"""
OPEN_JOBS: Final = text(
    f"""
    SELECT queue, status, lane, count(*) AS jobs, count(dispatched_at) AS tickets,
           extract(epoch FROM now() - min(created_at)) AS oldest
      FROM jobs WHERE {NOT_OVER} GROUP BY queue, status, lane
    """  # noqa: S608 - no value is put into the text
)
WORKERS: Final = text(
    """
    SELECT provider, state, count(*) AS workers, sum(slots) AS slots
      FROM workers WHERE heartbeat_at > now() - make_interval(secs => :alive) GROUP BY provider, state
    """
)
DELIVERIES: Final = text(
    """
    SELECT count(*) AS pending, coalesce(extract(epoch FROM now() - min(created_at)), 0) AS oldest
      FROM webhook_deliveries WHERE state = 'pending'
    """
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenJobs:
    """The jobs of one queue, state and lane that are not over."""

    queue: str
    state: JobState
    lane: Lane
    jobs: int
    tickets: int  #: of those, how many the broker was given
    oldest: float  #: seconds since the oldest of them was accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveWorkers:
    """Processes with a recent heartbeat."""

    provider: str
    state: str
    workers: int
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Everything at one moment."""

    jobs: Sequence[OpenJobs]
    workers: Sequence[LiveWorkers]
    pending_webhooks: int
    oldest_webhook: float  #: seconds


def standing(session: Session) -> Standing:
    """Read it all; the cost grows with what is open, never with what is over."""
    lanes = list(Lane)
    jobs = [
        OpenJobs(
            queue=row.queue,
            state=JobState(row.status),
            lane=lanes[row.lane],
            jobs=row.jobs,
            tickets=row.tickets,
            oldest=float(row.oldest),
        )
        for row in session.execute(OPEN_JOBS)
    ]
    live = [
        LiveWorkers(provider=row.provider, state=row.state, workers=row.workers, slots=row.slots)
        for row in session.execute(WORKERS, {"alive": workers.ALIVE})
    ]
    told = session.execute(DELIVERIES).one()
    return Standing(jobs=jobs, workers=live, pending_webhooks=told.pending, oldest_webhook=float(told.oldest))
