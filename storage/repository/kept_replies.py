"""Replies of calls that make something other than a job: kept under their idempotency key, and given again."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from storage.repository import idempotency
from storage.repository.idempotency import TRIES, Taken


@dataclass(frozen=True, slots=True)
class Kept:
    """The first reply; ``sealed`` is opened by who sealed it."""

    status_code: int
    sealed: str


def take(session: Session, call: Taken) -> Kept | None:
    """Take the key for this call; the reply of the first call with it, if it was not this one.

    Raises:
        IdempotencyKeyReused: the first call was another one.
        IdempotencyInFlight: the first call is still worked on.
    """
    for _ in range(TRIES):
        if idempotency.held(session, call):
            return None
        row = idempotency.seen(session, call)
        if row is None:
            continue  # it was given up just now
        if row.status_code is not None and row.sealed_reply is not None:
            return Kept(row.status_code, row.sealed_reply)
        break
    raise idempotency.in_flight()


def keep(session: Session, call: Taken, *, status_code: int, sealed: str, ttl: float) -> None:
    """The key stands for this reply from now on, for ``ttl`` seconds.

    Raises:
        IdempotencyInFlight: the hold ran out and another call has the key; this one must store nothing.
    """
    idempotency.settle(session, call, ttl, status_code=status_code, sealed_reply=sealed)
