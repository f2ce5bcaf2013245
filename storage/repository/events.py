"""What happened to a job, kept for replay, and the notifications that wake those who wait for it."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fluxfarm.airecord import Problem
from fluxfarm.jobs import JobState
from storage.records import Event
from storage.repository import deliveries, ledger

JOB_CHANGED: Final = "fluxfarm_job_changed"  #: channel: a job's uuid after each event
JOB_STOPPED: Final = "fluxfarm_job_stopped"  #: channel: a job's uuid and the number of the attempt that must stop
EVERY_ATTEMPT: Final = "*"


def add(session: Session, uuid: UUID, kind: str, payload: dict[str, Any]) -> None:
    """Keep an event and wake who waits for the job, both when the transaction commits."""
    session.add(Event(job_uuid=uuid, kind=kind, payload=payload))
    session.flush()
    session.execute(select(func.pg_notify(JOB_CHANGED, str(uuid))))


def add_status(session: Session, uuid: UUID, status: JobState, problem: Problem | None = None) -> None:
    """The job moved to another state; with a final one its webhook is told and its money closed, all at once."""
    payload: dict[str, Any] = {"status": status.value}
    if problem is not None:
        payload["error"] = problem.model_dump(mode="json", by_alias=True)
    add(session, uuid, "status", payload)
    if status.is_final:
        deliveries.add(session, uuid, status, problem)
        ledger.close(session, uuid)


def announce_stop(session: Session, uuid: UUID, attempt: int | None) -> None:
    """Tell the worker that renders this attempt (None: any) to stop within two steps; a later one goes on."""
    which = EVERY_ATTEMPT if attempt is None else str(attempt)
    session.execute(select(func.pg_notify(JOB_STOPPED, f"{uuid} {which}")))
    session.execute(select(func.pg_notify(JOB_CHANGED, str(uuid))))


def since(session: Session, uuid: UUID, last_id: int) -> list[Event]:
    """The events of a job after the one with ``last_id``, in order; the caller has checked the tenant."""
    return list(session.scalars(select(Event).where(Event.job_uuid == uuid, Event.id > last_id).order_by(Event.id)))
