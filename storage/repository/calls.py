"""Paid calls: the intent before the POST, the ticket before the first poll, the end with the money.

Each move is one compare-and-set on the call's own state. A ticket is noted whatever became of the job, as it is a fact;
an intent is written only while its attempt holds the job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Interval, delete, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fluxfarm.airecord import Problem
from fluxfarm.errors import OutcomeUnknown
from fluxfarm.jobs import JobState
from storage.records import Job
from storage.remote_records import InboundEvent, RemoteCall
from storage.repository import ledger
from storage.repository.accounts import OPERATOR

OPEN: Final = ("intended", "submitted")
CALL_HINT: Final = (
    "fluxfarm_call_hint"  #: channel: the uuid of a job about one of whose calls a provider said something
)
LEFT_BEHIND: Final = Problem(
    code=OutcomeUnknown.code,
    message="The job was over before the provider's answer came; the call is counted as paid.",
    retryable=False,
)

INTEND: Final = text(
    """
    INSERT INTO remote_calls
           (nonce, job_uuid, tenant_id, attempt, images, provider, account, model, price, hooked)
    SELECT :nonce, uuid, tenant_id, attempt, CAST(:images AS smallint[]), :provider, :account, :model, :price, :hooked
      FROM jobs WHERE uuid = :job AND attempt = :attempt AND status = 'RUNNING'
       FOR KEY SHARE
    RETURNING nonce
    """
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A paid call that is about to be made."""

    nonce: UUID
    job: UUID
    attempt: int
    images: tuple[int, ...]
    provider: str
    account: str
    model: str
    price: Decimal  #: USD that the tenant has reserved for it
    hooked: bool


def intend(session: Session, intent: Intent) -> bool:
    """Note a call before its POST; False: the attempt no longer holds the job, and the POST must not be made."""
    values = {
        "nonce": intent.nonce,
        "job": intent.job,
        "attempt": intent.attempt,
        "images": list(intent.images),
        "provider": intent.provider,
        "account": intent.account,
        "model": intent.model,
        "price": intent.price,
        "hooked": intent.hooked,
    }
    return session.scalar(INTEND, values) is not None


def submitted(session: Session, nonce: UUID, ticket: Mapping[str, Any]) -> bool:
    """The provider has it; False: the call was over or had a ticket already."""
    return _move(session, nonce, ("intended",), state="submitted", ticket=dict(ticket), submitted_at=func.now())


def keep(session: Session, nonce: UUID, kept: Sequence[Mapping[str, Any]], cost: Decimal) -> bool:
    """The end of a call whose pictures were put into the store; it is paid."""
    values = {"state": "done", "kept": [dict(one) for one in kept], "cost": cost, "ended_at": func.now()}
    if not _move(session, nonce, OPEN, **values):
        return False
    _settle(session, nonce, cost)
    return True


def done(session: Session, nonce: UUID, cost: Decimal) -> bool:
    """The end of a call whose pictures the finishing attempt has; it is paid with the attempt."""
    return _move(session, nonce, OPEN, state="done", cost=cost, ended_at=func.now())


def failed(session: Session, nonce: UUID, problem: Problem, cost: Decimal = Decimal(0)) -> bool:
    """The call made no picture; ``cost`` is what it is counted as all the same."""
    error = problem.model_dump(mode="json", by_alias=True)
    state = "unknown" if problem.code == OutcomeUnknown.code else "failed"
    if not _move(session, nonce, OPEN, state=state, error=error, cost=cost, ended_at=func.now()):
        return False
    _settle(session, nonce, cost)
    return True


def of_job(session: Session, job: UUID) -> list[RemoteCall]:
    """Every call of a job, the oldest first."""
    return list(
        session.scalars(
            select(RemoteCall)
            .where(RemoteCall.job_uuid == job)
            .order_by(RemoteCall.created_at, RemoteCall.nonce)
            .execution_options(populate_existing=True)
        )
    )


def read(session: Session, nonce: UUID) -> RemoteCall | None:
    """The call of this nonce."""
    return session.get(RemoteCall, nonce, populate_existing=True)


def take_event(session: Session, provider: str, event: str, nonce: UUID) -> bool:
    """Note a provider's webhook; False: it came before."""
    new = insert(InboundEvent).values(provider=provider, id=event, nonce=nonce).on_conflict_do_nothing()
    return session.scalar(new.returning(InboundEvent.id)) is not None


def forget_events(session: Session, *, older_than: float) -> int:
    """Drop what is so many seconds old that its signature counts no more."""
    gone = session.execute(
        delete(InboundEvent)
        .where(InboundEvent.received_at < func.now() - literal(timedelta(seconds=older_than), Interval))
        .returning(InboundEvent.id)
    )
    return len(gone.all())


def hint(session: Session, call: RemoteCall) -> None:
    """Wake the worker that waits for the call."""
    session.execute(select(func.pg_notify(CALL_HINT, str(call.job_uuid))))


def left_behind(session: Session, *, older_than: float, limit: int = 100) -> int:
    """Close open calls of jobs that are over or erased: nobody will poll them, and each counts as paid."""
    over = select(Job.uuid).where(Job.uuid == RemoteCall.job_uuid, Job.status.in_([JobState.QUEUED, JobState.RUNNING]))
    found = session.execute(
        select(RemoteCall.nonce, RemoteCall.job_uuid, RemoteCall.price)
        .where(
            RemoteCall.state.in_(OPEN),
            RemoteCall.created_at < func.now() - literal(timedelta(seconds=older_than), Interval),
            ~over.exists(),
        )
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    for row in found:
        failed(session, row.nonce, LEFT_BEHIND, row.price)
        ledger.close(session, row.job_uuid)
    return len(found)


def _move(session: Session, nonce: UUID, sources: Sequence[str], **values: Any) -> bool:
    moved = session.execute(
        update(RemoteCall)
        .where(RemoteCall.nonce == nonce, RemoteCall.state.in_(sources))
        .values(**values)
        .returning(RemoteCall.nonce)
    )
    return moved.scalar_one_or_none() is not None


def _settle(session: Session, nonce: UUID, cost: Decimal) -> None:
    """Charge the tenant, unless its own key has paid."""
    call = session.get(RemoteCall, nonce)
    if call is None or call.account != OPERATOR or cost <= 0:
        return
    campaign = session.scalar(
        update(Job).where(Job.uuid == call.job_uuid).values(cost=Job.cost + cost).returning(Job.campaign)
    )
    if campaign is None:  # erased
        campaign = ledger.campaign_of(session, call.job_uuid)
    ledger.settle(session, call.tenant_id, campaign, call.job_uuid, cost, call.provider)
