"""Idempotency keys: the same call twice is one job. A key belongs to a tenant, to one call, and to what that made.

That is a job, or else a reply that is kept (``storage.repository.kept_replies``). A row with neither is in flight: its
request still does something outside of any transaction, such as fetching pictures, under a hold that runs out by itself
if the process dies. Whatever else a request does happens in the transaction that took the key, so that a second request
with the key waits at the row until the first one has committed or has left nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Interval,
    bindparam,
    delete,
    exists,
    func,
    literal,
    null,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fluxfarm.errors import IdempotencyInFlight, IdempotencyKeyReused
from storage.records import IdempotencyKey, Job
from storage.repository import jobs

IN_FLIGHT: Final = 120.0  #: seconds that a request may fetch pictures before another one may take its key
RETRY_AFTER: Final = 2.0  #: seconds until a call that met one in flight is worth repeating
TRIES: Final = 3  #: a key may be given up between the look that found it taken and the look at what it stands for


_MINE: Final = {
    "digest": bindparam("digest"),
    "holder": bindparam("holder"),
    "job_uuid": bindparam("key_job"),
    "status_code": bindparam("status_code"),
    "sealed_reply": null(),
    "expires_at": func.now() + bindparam("seconds", type_=Interval),
}
EXPIRED: Final = IdempotencyKey.expires_at <= func.now()
#: gives a row when the key is ours now: it was free, or what it stood for is over its time
TAKE: Final = (
    insert(IdempotencyKey)
    .values(tenant_id=bindparam("key_tenant"), key=bindparam("key"), **_MINE)
    .on_conflict_do_update(
        index_elements=["tenant_id", "key"],
        set_=_MINE | {"created_at": func.now()},
        where=bindparam("is_first", type_=Boolean) | EXPIRED,
    )
    .returning(IdempotencyKey.holder)
)
_TAKEN: Final = TAKE.cte("taken")
#: takes the key and stores its job, which stands alone; gives no row when the key is another call's
STORE: Final = (
    insert(jobs.TABLE)
    .from_select(jobs.TOLD, select(*jobs.ARRIVING.c).where(exists(select(_TAKEN))))
    .returning(*jobs.MADE)
)


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
        if held(session, call):
            return None
        if (first := look(session, call)) is not None:
            return first
    raise in_flight()


def held(session: Session, call: Taken) -> bool:
    """Whether the key was free and is this call's now, in flight."""
    return session.scalar(TAKE, taking(call, IN_FLIGHT)) is not None


def look(session: Session, call: Taken | None) -> First | None:
    """What the first call with the key came to; None: the key is free, or there is no call.

    Raises:
        IdempotencyKeyReused, IdempotencyInFlight: as above.
    """
    if call is None or call.is_first or (row := seen(session, call)) is None:
        return None
    if row.job_uuid is None or row.status_code is None:
        raise in_flight()
    return First(jobs.read(session, call.tenant_id, row.job_uuid), row.status_code)


def seen(session: Session, call: Taken) -> IdempotencyKey | None:
    """The row of the key while it counts.

    Raises:
        IdempotencyKeyReused: the first call was another one.
    """
    row = session.scalars(
        select(IdempotencyKey)
        .where(IdempotencyKey.tenant_id == call.tenant_id, IdempotencyKey.key == call.key, ~EXPIRED)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if row is not None and row.digest != call.digest:
        message = "This Idempotency-Key came before with another call; give each call a key of its own."
        raise IdempotencyKeyReused(message)
    return row


def taking(call: Taken, seconds: float, status_code: int | None = None) -> dict[str, Any]:
    """What ``TAKE`` is told: with the status of the reply its job is there, without one the call is in flight."""
    return {
        "key_tenant": call.tenant_id,
        "key": call.key,
        "digest": call.digest,
        "holder": call.holder,
        "key_job": None if status_code is None else call.holder,
        "status_code": status_code,
        "seconds": timedelta(seconds=seconds),
        "is_first": call.is_first,
    }


def in_flight() -> IdempotencyInFlight:
    """What a call is told whose twin is worked on."""
    message = "A call with this Idempotency-Key is still worked on; repeat it in a moment to get its reply."
    return IdempotencyInFlight(message, retry_after=RETRY_AFTER)


def finish(session: Session, call: Taken | None, *, status_code: int, ttl: float) -> None:
    """The key stands for the holder's job from now on, for ``ttl`` seconds. No call: nothing to keep.

    Raises:
        IdempotencyInFlight: the hold ran out and another call has the key; this one must store nothing.
    """
    if call is not None:
        settle(session, call, ttl, job_uuid=call.holder, status_code=status_code)


def settle(session: Session, call: Taken, ttl: float, **found: Any) -> None:
    """End the flight: the key stands for these columns.

    Raises:
        IdempotencyInFlight: as above.
    """
    settled = session.scalar(
        update(IdempotencyKey)
        .where(*_held(call))
        .values(**found, expires_at=_after(call.ttl or ttl))
        .returning(IdempotencyKey.holder)
    )
    if settled is None and not call.is_first:
        raise in_flight()


def release(session: Session, call: Taken) -> None:
    """Give the key up, if this call still holds it and made nothing: the same call may be tried again at once."""
    session.execute(delete(IdempotencyKey).where(*_held(call)))


def forget(session: Session, limit: int = 1000) -> int:
    """Drop keys that are over their time; how many."""
    over = (
        select(IdempotencyKey.tenant_id, IdempotencyKey.key)
        .where(IdempotencyKey.expires_at <= func.now())
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("over")  # a subquery might be run once a row, and each time give the next one
    )
    gone = session.execute(
        delete(IdempotencyKey)
        .where(IdempotencyKey.tenant_id == over.c.tenant_id, IdempotencyKey.key == over.c.key)
        .returning(IdempotencyKey.key)
    )
    return len(gone.all())


def _held(call: Taken) -> tuple[ColumnElement[bool], ...]:
    return (
        IdempotencyKey.tenant_id == call.tenant_id,
        IdempotencyKey.key == call.key,
        IdempotencyKey.holder == call.holder,
        IdempotencyKey.status_code.is_(None),
    )


def _after(seconds: float) -> ColumnElement[Any]:
    return func.now() + literal(timedelta(seconds=seconds), Interval)
