"""Idempotency keys: the same call twice is one job. A key belongs to a tenant, to one call, and to the job it made.

A row without a job is in flight: its request still fetches pictures outside of any transaction, under a hold that
runs out by itself if the process dies. Whatever else a request does happens in the transaction that took the key, so
that a second request with the key waits at the row until the first one has committed or has left nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Interval, delete, func, literal, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fluxfarm.errors import IdempotencyInFlight, IdempotencyKeyReused
from storage.records import IdempotencyKey, Job
from storage.repository import jobs

IN_FLIGHT: Final = 120.0  #: seconds that a request may fetch pictures before another one may take its key
RETRY_AFTER: Final = 2.0  #: seconds until a call that met one in flight is worth repeating
TRIES: Final = 3  #: a key may be given up between the look that found it taken and the look at what it stands for


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A call under a key; ``holder`` is the uuid that its job will have.

    ``is_first``: whatever the key stood for, it stands for this call now, and nobody is refused for it. ``ttl`` is the
    key's own life in seconds, None the usual one.
    """

    tenant_id: UUID
    key: str
    digest: bytes
    holder: UUID
    is_first: bool = False
    ttl: float | None = None


@dataclass(frozen=True, slots=True)
class First:
    """What the first call with the key came to: its job as it is now, and the status of its reply."""

    job: Job
    status_code: int


def take(session: Session, call: Taken | None) -> First | None:
    """Take the key for this call; what the first call with it came to, if it was not this one. No call: no key.

    Raises:
        IdempotencyKeyReused: the first call was another one.
        IdempotencyInFlight: the first call is still worked on.
    """
    if call is None:
        return None
    for _ in range(TRIES):
        if _insert(session, call):
            return None
        seen = session.execute(
            select(IdempotencyKey.digest, IdempotencyKey.job_uuid, IdempotencyKey.status_code).where(
                IdempotencyKey.tenant_id == call.tenant_id, IdempotencyKey.key == call.key
            )
        ).one_or_none()
        if seen is not None:
            return _first(session, call, *seen)
    raise _in_flight()


def _insert(session: Session, call: Taken) -> bool:
    """Whether the key is ours now: it was free, or what it stood for is over its time."""
    values = {"digest": call.digest, "holder": call.holder, "expires_at": _after(IN_FLIGHT)}
    statement = insert(IdempotencyKey).values(tenant_id=call.tenant_id, key=call.key, **values)
    mine = session.scalar(
        statement.on_conflict_do_update(
            index_elements=["tenant_id", "key"],
            set_=values | {"job_uuid": None, "status_code": None, "created_at": func.now()},
            where=None if call.is_first else IdempotencyKey.expires_at <= func.now(),
        ).returning(IdempotencyKey.holder)
    )
    return mine is not None


def _first(session: Session, call: Taken, digest: bytes, job_uuid: UUID | None, status_code: int | None) -> First:
    if digest != call.digest:
        message = "This Idempotency-Key came before with another call; give each call a key of its own."
        raise IdempotencyKeyReused(message)
    if job_uuid is None or status_code is None:
        raise _in_flight()
    return First(jobs.read(session, call.tenant_id, job_uuid), status_code)


def _in_flight() -> IdempotencyInFlight:
    message = "A call with this Idempotency-Key is still worked on; repeat it in a moment to get its reply."
    return IdempotencyInFlight(message, retry_after=RETRY_AFTER)


def finish(session: Session, call: Taken | None, *, status_code: int, ttl: float) -> None:
    """The key stands for the holder's job from now on, for ``ttl`` seconds. No call: nothing to keep.

    Raises:
        IdempotencyInFlight: the hold ran out and another call has the key; this one must store nothing.
    """
    if call is None:
        return
    held = session.scalar(
        update(IdempotencyKey)
        .where(*_held(call))
        .values(job_uuid=call.holder, status_code=status_code, expires_at=_after(call.ttl or ttl))
        .returning(IdempotencyKey.holder)
    )
    if held is None and not call.is_first:
        raise _in_flight()


def release(session: Session, call: Taken) -> None:
    """Give the key up, if this call still holds it and made no job: the same call may be tried again at once."""
    session.execute(delete(IdempotencyKey).where(*_held(call)))


def forget(session: Session, limit: int = 1000) -> int:
    """Drop keys that are over their time; how many."""
    over = (
        select(IdempotencyKey.tenant_id, IdempotencyKey.key)
        .where(IdempotencyKey.expires_at <= func.now())
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    gone = session.execute(
        delete(IdempotencyKey)
        .where(tuple_(IdempotencyKey.tenant_id, IdempotencyKey.key).in_(over))
        .returning(IdempotencyKey.key)
    )
    return len(gone.all())


def _held(call: Taken) -> tuple[ColumnElement[bool], ...]:
    return (
        IdempotencyKey.tenant_id == call.tenant_id,
        IdempotencyKey.key == call.key,
        IdempotencyKey.holder == call.holder,
        IdempotencyKey.job_uuid.is_(None),
    )


def _after(seconds: float) -> ColumnElement[Any]:
    return func.now() + literal(timedelta(seconds=seconds), Interval)
