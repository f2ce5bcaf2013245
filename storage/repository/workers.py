"""The processes that render, as they last said of themselves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Interval, delete, func, literal, select, text, update
from sqlalchemy.orm import Session

from storage.records import Worker

ALIVE = 30.0  #: seconds since the last heartbeat for which a worker counts as alive

#: whether a worker holds the lock of ``presence``; pg_locks tells its 64 bits in two halves
PRESENT: Final = """
    EXISTS (SELECT FROM pg_locks AS held
             WHERE held.locktype = 'advisory' AND held.objsubid = 1 AND held.granted
               AND (held.classid::bigint << 32) | held.objid::bigint
                   = ('x' || left(replace(workers.id::text, '-', ''), 16))::bit(64)::bigint)
"""
PRESENT_SLOTS: Final = text(
    f"""
    SELECT sum(slots) FROM workers
     WHERE heartbeat_at > now() - make_interval(secs => :alive) AND :queue = ANY (queues) AND {PRESENT}
    """  # noqa: S608 - no value of anybody is in it
)

WARM_ELSEWHERE: Final = text(
    f"""
    SELECT coalesce(min(dispatched_at) > now() - make_interval(secs => :patience), false)
           AND EXISTS (
               SELECT FROM workers
                WHERE workers.id <> :id AND :queue = ANY (workers.queues) AND :model = ANY (workers.warm)
                  AND heartbeat_at > now() - interval '30 seconds' AND {PRESENT})
      FROM jobs
     WHERE queue = :queue AND status = 'QUEUED' AND dispatched_at IS NOT NULL
    """  # noqa: S608 - no value of anybody is in it
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How a worker stands with its models."""

    state: str
    device: str
    warm: list[str]
    loading: str | None = None
    loaded_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a worker measured of its device; without a total the memory is that of its process."""

    memory_used: int  #: bytes
    memory_total: int | None = None
    utilisation: float | None = None  #: share


def recent(seconds: float = ALIVE) -> ColumnElement[datetime]:
    """The moment after which a heartbeat counts."""
    return func.now() - literal(timedelta(seconds=seconds), Interval)


def register(session: Session, worker: Worker) -> None:
    """A worker process started."""
    session.merge(worker)


def heartbeat(session: Session, worker_id: UUID, condition: Condition, reading: Reading) -> bool:
    """It lives, and stands so; False: it is not registered."""
    found = session.scalar(
        update(Worker)
        .where(Worker.id == worker_id)
        .values(heartbeat_at=func.now(), **asdict(condition), **asdict(reading))
        .returning(Worker.id)
    )
    return found is not None


def remove(session: Session, worker_id: UUID) -> None:
    """It stopped in order."""
    session.execute(delete(Worker).where(Worker.id == worker_id))


def alive(session: Session) -> list[Worker]:
    """Those with a recent heartbeat, the oldest first."""
    return list(session.scalars(select(Worker).where(Worker.heartbeat_at > recent()).order_by(Worker.started_at)))


def slots(session: Session, queue: str) -> int:
    """How many threads of live workers take from the queue."""
    total = session.scalar(
        select(func.coalesce(func.sum(Worker.slots), 0)).where(
            Worker.heartbeat_at > recent(), Worker.queues.contains([queue])
        )
    )
    return int(total or 0)


def present_slots(session: Session, queue: str) -> int:
    """The same, of workers whose process is there at this very moment: each holds a lock as long as it lives.

    A heartbeat tells of a process that was killed only half a minute later; the lock goes with its connection.
    """
    return int(session.scalar(PRESENT_SLOTS, {"queue": queue, "alive": ALIVE}) or 0)


def leave_to_the_warm(session: Session, worker_id: UUID, model: str, queue: str, patience: float) -> bool:
    """Whether a ticket is better left to another worker, that is there, takes from the queue and has the model warm.

    The queue is asked and not the job that the ticket names, as a batch may have taken that along. Not for ever: a job
    that has had a ticket for ``patience`` seconds is worth a load.
    """
    found = session.scalar(WARM_ELSEWHERE, {"id": worker_id, "model": model, "queue": queue, "patience": patience})
    return bool(found)


def presence(worker_id: UUID) -> int:
    """The key of the advisory lock that a worker holds while it lives."""
    return int.from_bytes(worker_id.bytes[:8], "big", signed=True)


def forget_dead(session: Session, *, older_than: float = 3600.0) -> int:
    """Drop workers that have been silent for that many seconds."""
    gone = session.execute(delete(Worker).where(Worker.heartbeat_at < recent(older_than)).returning(Worker.id))
    return len(gone.all())
