"""Jobs as their workers see them: claim, renew, finish; each write is fenced by (uuid, attempt, RUNNING)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Interval, delete, func, literal, select, text, tuple_, update
from sqlalchemy.orm import Session

from fluxfarm.airecord import Problem
from fluxfarm.jobs import JobState, sources
from storage.records import Attempt, Erasure, Job
from storage.remote_records import RemoteCall
from storage.repository import calls, campaign_ends, deliveries, events, ledger
from storage.repository.events import JOB_CHANGED
from storage.repository.turns import Claim

BACKOFF_BASE = 2.0  #: seconds; the n-th retry waits up to BASE * 2**n, evenly spread (full jitter)
BACKOFF_CAP = 60.0  #: seconds
ON_DEVICE = ("encode_prompt", "render")  #: what of an attempt's timings are its GPU-seconds


#: everything that a success changes, in one round trip; the last three learn from what it took
FINISH = text(
    """
    WITH done AS (
        UPDATE jobs
           SET status = 'SUCCESS', lease_expires_at = NULL, finished_at = now(), step = steps, cost = cost + :cost,
               error = NULL
         WHERE uuid = :uuid AND attempt = :attempt AND status = 'RUNNING'
        RETURNING uuid, queue, tenant_id, campaign, gpu_seconds, webhook_id
    ),
    pictures AS (
        INSERT INTO images (job_uuid, n, attempt, object_key, seed, width, height, content_type, size_bytes, sha256)
        SELECT done.uuid, image.n, :attempt, image.object_key, image.seed, image.width, image.height,
               image.content_type, image.size_bytes, image.sha256
          FROM done, jsonb_to_recordset(CAST(:images AS jsonb)) AS image(
               n integer, object_key text, seed bigint, width integer, height integer, content_type text,
               size_bytes bigint, sha256 text)
    ),
    closed AS (
        UPDATE attempts
           SET status = 'SUCCESS', ended_at = now(), timings = CAST(:timings AS jsonb), model_revision = :revision,
               cost = :cost, swept = true, device = CAST(:device AS jsonb),
               batch = CASE WHEN CAST(:batch AS jsonb) IS NOT NULL
                            THEN coalesce(attempts.batch, '{}') || CAST(:batch AS jsonb) END
          FROM done WHERE job_uuid = done.uuid AND number = :attempt
    ),
    told AS (
        INSERT INTO events (job_uuid, kind, payload)
        SELECT uuid, 'status', jsonb_build_object('status', 'SUCCESS') FROM done
    ),
    outbox AS (
        INSERT INTO webhook_deliveries (id, endpoint_id, job_uuid, type, state, last_error, ended_at)
        SELECT :message, endpoint.id, done.uuid, 'job.succeeded',
               CASE WHEN endpoint.disabled_at IS NULL THEN 'pending' ELSE 'failed' END,
               CASE WHEN endpoint.disabled_at IS NOT NULL THEN 'endpoint_disabled' END,
               CASE WHEN endpoint.disabled_at IS NOT NULL THEN now() END
          FROM done JOIN webhook_endpoints AS endpoint ON endpoint.id = done.webhook_id
         WHERE 'end' = ANY (endpoint.moments)
           FOR KEY SHARE OF endpoint
    ),
    tenant AS (
        UPDATE tenant_shares AS share
           SET time = share.time + (CAST(:seconds AS double precision) - done.gpu_seconds) / tenants.weight
          FROM done JOIN tenants ON tenants.id = done.tenant_id
         WHERE share.queue = done.queue AND share.tenant_id = done.tenant_id
    ),
    campaign AS (
        UPDATE campaign_shares AS share
           SET time = share.time + (CAST(:seconds AS double precision) - done.gpu_seconds)
          FROM done
         WHERE share.queue = done.queue AND share.tenant_id = done.tenant_id AND share.campaign = done.campaign
    ),
    pace AS (
        UPDATE queue_clocks AS clock
           SET pace = 0.9 * clock.pace + 0.1 * CAST(:seconds AS double precision) / done.gpu_seconds
          FROM done WHERE clock.queue = done.queue AND done.gpu_seconds > 0
    )
    SELECT pg_notify(:channel, uuid::text), tenant_id, campaign,
           EXISTS (SELECT FROM ledger_entries WHERE job_uuid = uuid) AS has_money,
           EXISTS (SELECT FROM campaigns AS held WHERE held.tenant_id = done.tenant_id AND held.name = done.campaign
                                                   AND held.webhook_id IS NOT NULL) AS tells_of_campaign
      FROM done
    """
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an attempt made, before it is made visible."""

    images: Sequence[Mapping[str, Any]]  #: columns of Image, but for the job and the attempt
    timings: Mapping[str, float]
    model_revision: str
    cost: Decimal = Decimal(0)  #: USD that the tenant is charged
    provider: str = "local"
    calls: Mapping[UUID, Decimal] = field(default_factory=dict)  #: paid calls that made the images, with their cost
    device: Mapping[str, str | float] | None = None  #: how its kernels were set, and what it took of the device
    batch: Mapping[str, int] | None = None  #: position and size, where a call drew more than one picture


def erased(session: Session, *, older_than: float, limit: int = 100) -> list[tuple[UUID, UUID]]:
    """(tenant, job) of erasures that are so many seconds old that no zombie can write under them any more."""
    rows = session.execute(
        select(Erasure.tenant_id, Erasure.job_uuid)
        .where(Erasure.erased_at < func.now() - literal(timedelta(seconds=older_than), Interval))
        .order_by(func.random())
        .limit(limit)
    )
    return [(row.tenant_id, row.job_uuid) for row in rows]


def forget_erasures(session: Session, jobs: Sequence[UUID]) -> None:
    """Nothing of the jobs is left anywhere."""
    session.execute(delete(Erasure).where(Erasure.job_uuid.in_(jobs)))


def _lease(seconds: float) -> ColumnElement[Any]:
    return func.now() + literal(timedelta(seconds=seconds), Interval)


def renew(session: Session, held: Sequence[tuple[UUID, int]], lease: float) -> set[tuple[UUID, int]]:
    """Renew the leases of (job, attempt) pairs; what is missing from the answer is lost."""
    if not held:
        return set()
    rows = session.execute(
        update(Job)
        .where(tuple_(Job.uuid, Job.attempt).in_(held), Job.status == JobState.RUNNING)
        .values(lease_expires_at=_lease(lease))
        .returning(Job.uuid, Job.attempt)
    )
    return {(row.uuid, row.attempt) for row in rows}


def revise(session: Session, claimed: Claim, prompt: str) -> bool:
    """Note what the prompt became, for this attempt and every later one; False: the attempt no longer counts."""
    changed = session.execute(
        update(Job)
        .where(Job.uuid == claimed.uuid, Job.attempt == claimed.attempt, Job.status == JobState.RUNNING)
        .values(revised_prompt=prompt)
        .returning(Job.uuid)
    )
    return changed.scalar_one_or_none() is not None


def ignore(session: Session, claimed: Claim, name: str) -> None:
    """Note on the attempt that a parameter changed nothing."""
    session.execute(
        update(Attempt)
        .where(Attempt.job_uuid == claimed.uuid, Attempt.number == claimed.attempt)
        .values(ignored=func.array_append(Attempt.ignored, name))
    )


def heed(session: Session, claimed: Claim, name: str) -> None:
    """Note on the attempt that a parameter, which is listed as ignored, did change something."""
    session.execute(
        update(Attempt)
        .where(Attempt.job_uuid == claimed.uuid, Attempt.number == claimed.attempt)
        .values(ignored=func.array_remove(Attempt.ignored, name))
    )


def _end(session: Session, claimed: Claim, target: JobState, **values: Any) -> bool:
    """Move RUNNING to ``target`` for exactly this attempt."""
    assert JobState.RUNNING in sources(target)
    changed = session.execute(
        update(Job)
        .where(Job.uuid == claimed.uuid, Job.attempt == claimed.attempt, Job.status == JobState.RUNNING)
        .values(status=target, lease_expires_at=None, **values)
        .returning(Job.uuid)
    ).scalar_one_or_none()
    return changed is not None


def finish(session: Session, claimed: Claim, outcome: Outcome) -> bool:
    """RUNNING to SUCCESS with the images; False: the attempt lost its job and must delete what it stored.

    Safe to repeat: a finish whose answer was lost is found to be done.
    """
    done = session.execute(
        FINISH,
        {
            "uuid": claimed.uuid,
            "attempt": claimed.attempt,
            "images": json.dumps(list(outcome.images)),
            "timings": json.dumps(dict(outcome.timings)),
            "revision": outcome.model_revision,
            "cost": outcome.cost,
            "seconds": sum(outcome.timings.get(name, 0.0) for name in ON_DEVICE),
            "message": deliveries.new_id(),
            "device": None if outcome.device is None else json.dumps(dict(outcome.device)),
            "batch": None if outcome.batch is None else json.dumps(dict(outcome.batch)),
            "channel": JOB_CHANGED,
        },
    ).one_or_none()
    if done is None:
        return _is_finished(session, claimed)
    for nonce, cost in outcome.calls.items():
        calls.done(session, nonce, cost)
    if done.has_money or outcome.cost:
        ledger.settle(session, done.tenant_id, done.campaign, claimed.uuid, outcome.cost, outcome.provider)
        ledger.close(session, claimed.uuid)
    if done.tells_of_campaign:
        campaign_ends.tell(session, [(done.tenant_id, done.campaign)])
    return True


def _is_finished(session: Session, claimed: Claim) -> bool:
    found = session.execute(select(Job.status, Job.attempt).where(Job.uuid == claimed.uuid)).one_or_none()
    return found is not None and (found.status, found.attempt) == (JobState.SUCCESS, claimed.attempt)


def fail(session: Session, claimed: Claim, problem: Problem, *, max_attempts: int) -> JobState | None:
    """RUNNING to QUEUED with a delay when trying again can help, else to FAILED. None: the job was lost before."""
    payload = problem.model_dump(mode="json", by_alias=True)
    again = problem.retryable and claimed.attempt < max_attempts
    if again:
        spread = func.random() * min(BACKOFF_CAP, BACKOFF_BASE * 2**claimed.attempt)
        values = {"run_after": func.now() + spread * literal(timedelta(seconds=1), Interval), "error": payload}
    else:
        values = {"finished_at": func.now(), "error": payload}
    target = JobState.QUEUED if again else JobState.FAILED
    done = _end(session, claimed, target, **values)
    _close(session, claimed, JobState.FAILED, error=payload)
    if not done:
        return None
    events.add_status(session, claimed.uuid, target, problem)
    if target.is_final:
        campaign_ends.tell(session, [(claimed.tenant_id, claimed.campaign)])
    return target


def pass_on(session: Session, claimed: Claim, problem: Problem, queue: str) -> JobState | None:
    """RUNNING to QUEUED at once, on the queue of whoever may do better. None: the job was lost before."""
    payload = problem.model_dump(mode="json", by_alias=True)
    done = _end(session, claimed, JobState.QUEUED, queue=queue, dispatched_at=None, error=payload)
    _close(session, claimed, JobState.FAILED, error=payload)
    if not done:
        return None
    events.add_status(session, claimed.uuid, JobState.QUEUED, problem)
    return JobState.QUEUED


def stop(session: Session, claimed: Claim, problem: Problem) -> JobState | None:
    """RUNNING to CANCELED, when a budget has no room for what is left to do. None: the job was lost before."""
    payload = problem.model_dump(mode="json", by_alias=True)
    done = _end(session, claimed, JobState.CANCELED, finished_at=func.now(), error=payload)
    _close(session, claimed, JobState.CANCELED, error=payload)
    if not done:
        return None
    events.add_status(session, claimed.uuid, JobState.CANCELED, problem)
    campaign_ends.tell(session, [(claimed.tenant_id, claimed.campaign)])
    return JobState.CANCELED


def routed(session: Session, claimed: Claim, values: Mapping[str, Any]) -> bool:
    """Note on the running attempt who renders it and why; False: the attempt is over."""
    noted = session.execute(
        update(Attempt)
        .where(Attempt.job_uuid == claimed.uuid, Attempt.number == claimed.attempt, Attempt.status == JobState.RUNNING)
        .values(**values)
        .returning(Attempt.number)
    )
    return noted.scalar_one_or_none() is not None


def give_back(session: Session, claimed: Claim) -> bool:
    """RUNNING to QUEUED at once, when a worker stops before it is done."""
    done = _end(session, claimed, JobState.QUEUED)
    _close(session, claimed, JobState.CANCELED)
    if done:
        events.add_status(session, claimed.uuid, JobState.QUEUED)
    return done


def close_lost(session: Session, claimed: Claim, problem: Problem) -> bool:
    """End the attempt's row after it lost its job; the job is not touched. False: it had won, keep its images."""
    _close(session, claimed, JobState.CANCELED, error=problem.model_dump(mode="json", by_alias=True))
    own = (Attempt.job_uuid == claimed.uuid, Attempt.number == claimed.attempt)
    return session.scalar(select(Attempt.status).where(*own)) is not JobState.SUCCESS


def mark_swept(session: Session, uuid: UUID, number: int) -> None:
    """The objects of a losing attempt are gone."""
    session.execute(update(Attempt).where(Attempt.job_uuid == uuid, Attempt.number == number).values(swept=True))


def _close(session: Session, claimed: Claim, status: JobState, **values: Any) -> None:
    session.execute(
        update(Attempt)
        .where(Attempt.job_uuid == claimed.uuid, Attempt.number == claimed.attempt, Attempt.status == JobState.RUNNING)
        .values(status=status, ended_at=func.now(), **values)
    )


def expire(session: Session, *, max_attempts: int, poison: Problem, lost: Problem, limit: int = 100) -> list[UUID]:
    """Take jobs from dead workers by the database's clock: QUEUED again, or FAILED after too many deaths."""
    rows = session.execute(
        select(Job.uuid, Job.attempt, Job.tenant_id, Job.campaign)
        .where(Job.status == JobState.RUNNING, Job.lease_expires_at < func.now())
        .order_by(Job.lease_expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    for uuid, attempt, _, _ in rows:
        final = _deaths(session, uuid, lost) + 1 >= max_attempts
        problem = poison if final else lost
        target = JobState.FAILED if final else JobState.QUEUED
        payload = problem.model_dump(mode="json", by_alias=True)
        session.execute(
            update(Job)
            .where(Job.uuid == uuid)
            .values(
                status=target,
                lease_expires_at=None,
                dispatched_at=None,
                error=payload,
                finished_at=func.now() if final else None,
            )
        )
        session.execute(
            update(Attempt)
            .where(Attempt.job_uuid == uuid, Attempt.number == attempt, Attempt.status == JobState.RUNNING)
            .values(status=JobState.FAILED, ended_at=func.now(), error=payload)
        )
        events.add_status(session, uuid, target, problem)
        events.announce_stop(session, uuid, attempt)
    campaign_ends.tell(session, [(row.tenant_id, row.campaign) for row in rows])
    return [row.uuid for row in rows]


def _deaths(session: Session, uuid: UUID, lost: Problem) -> int:
    """How many workers the job has killed so far; a start that failed in order is none."""
    count = session.scalar(
        select(func.count()).where(Attempt.job_uuid == uuid, Attempt.error["code"].astext == lost.code)
    )
    return count or 0


def unswept(session: Session, *, older_than: float, limit: int = 100) -> list[tuple[UUID, UUID, int]]:
    """(tenant, job, attempt) of attempts that lost, ended that many seconds ago and may have left objects."""
    paid = select(RemoteCall.nonce).where(  # pictures that the next attempt takes over
        RemoteCall.job_uuid == Attempt.job_uuid,
        RemoteCall.kept.is_not(None),
        Job.status.in_([JobState.QUEUED, JobState.RUNNING]),
    )
    rows = session.execute(
        select(Job.tenant_id, Attempt.job_uuid, Attempt.number)
        .join(Job, Job.uuid == Attempt.job_uuid)
        .where(
            Attempt.swept.is_(False),
            ~paid.exists(),
            Attempt.ended_at < func.now() - literal(timedelta(seconds=older_than), Interval),
        )
        .order_by(func.random())  # one that cannot be swept must not hold up the others
        .limit(limit)
    )
    return [(row.tenant_id, row.job_uuid, row.number) for row in rows]
