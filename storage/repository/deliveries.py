"""The outbox: messages are written with what they tell of, handed out by ticket, and kept until they are delivered.

A delivery is claimed for one attempt by one sender; a sender that dies leaves a lease that runs out, and the message is
sent again under the same id (at least once). Every later write is fenced by the number of the attempt.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from fluxfarm.airecord import Problem, milliseconds
from fluxfarm.jobs import JobState
from fluxfarm.webhooks import EVENTS, TEST_EVENT, Form, campaign_data, job_data
from storage.keys import random_id
from storage.records import Job
from storage.repository import campaign_assets, ledger
from storage.repository.reading import WHOLE, load

PER_ENDPOINT: Final = 2  #: deliveries of one endpoint that are out at once: a slow one leaves the other slots free
TICKET_PATIENCE: Final = 30.0  #: seconds after which an unclaimed ticket counts as lost
DISABLED: Final = "endpoint_disabled"
SENDER_LOST: Final = "sender_lost"

ADD: Final = text(
    """
    INSERT INTO webhook_deliveries (id, endpoint_id, job_uuid, type, error_code, state, last_error, ended_at)
    SELECT :id, endpoint.id, jobs.uuid, :type, :code,
           CASE WHEN endpoint.disabled_at IS NULL THEN 'pending' ELSE 'failed' END,
           CASE WHEN endpoint.disabled_at IS NOT NULL THEN 'endpoint_disabled' END,
           CASE WHEN endpoint.disabled_at IS NOT NULL THEN now() END
      FROM jobs JOIN webhook_endpoints AS endpoint ON endpoint.id = jobs.webhook_id
     WHERE jobs.uuid = :uuid AND 'end' = ANY (endpoint.moments)
       FOR KEY SHARE OF endpoint
    """
)
WITH_PENDING: Final = """
    (SELECT endpoint_id FROM webhook_deliveries WHERE state = 'pending' ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT following.endpoint_id FROM webhook_deliveries AS following
             WHERE following.state = 'pending' AND following.endpoint_id > endpoints.endpoint_id
             ORDER BY following.endpoint_id LIMIT 1)
      FROM endpoints WHERE endpoints.endpoint_id IS NOT NULL
"""
ISSUE: Final = """
    WITH RECURSIVE endpoints AS ({endpoints}),
    chosen AS MATERIALIZED (
        SELECT due.id
          FROM endpoints JOIN webhook_endpoints AS endpoint ON endpoint.id = endpoints.endpoint_id
         CROSS JOIN LATERAL (
               SELECT id, next_attempt_at, ticketed_at, lease_expires_at FROM webhook_deliveries
                WHERE endpoint_id = endpoint.id AND state = 'pending' AND next_attempt_at <= now()
                ORDER BY next_attempt_at LIMIT :per_endpoint) AS due
         WHERE endpoint.disabled_at IS NULL AND coalesce(endpoint.paused_until, '-infinity') <= now()
           AND coalesce(due.ticketed_at, '-infinity') < now() - make_interval(secs => :patience)
           AND coalesce(due.lease_expires_at, '-infinity') <= now()
         ORDER BY due.next_attempt_at LIMIT :room
    ),
    locked AS MATERIALIZED (
        SELECT id FROM webhook_deliveries
         WHERE id IN (SELECT id FROM chosen) AND state = 'pending'
           AND coalesce(ticketed_at, '-infinity') < now() - make_interval(secs => :patience)
           AND coalesce(lease_expires_at, '-infinity') <= now()
           FOR UPDATE SKIP LOCKED
    ),
    issued AS (
        UPDATE webhook_deliveries AS delivery SET ticketed_at = now() FROM locked WHERE delivery.id = locked.id
        RETURNING delivery.id, delivery.next_attempt_at, delivery.seq
    )
    SELECT id FROM issued ORDER BY next_attempt_at, seq
"""
ISSUE_TO_ALL: Final = text(ISSUE.format(endpoints=WITH_PENDING))
ISSUE_TO_ONE: Final = text(ISSUE.format(endpoints="SELECT CAST(:endpoint_id AS text) AS endpoint_id"))
CLAIM: Final = text(
    """
    WITH chosen AS MATERIALIZED (
        SELECT delivery.id
          FROM webhook_deliveries AS delivery
          JOIN webhook_endpoints AS endpoint ON endpoint.id = delivery.endpoint_id
         WHERE delivery.id = :id AND delivery.state = 'pending' AND delivery.next_attempt_at <= now()
           AND coalesce(delivery.lease_expires_at, '-infinity') <= now()
           AND endpoint.disabled_at IS NULL AND coalesce(endpoint.paused_until, '-infinity') <= now()
           FOR UPDATE OF delivery SKIP LOCKED
    ),
    lost AS (
        UPDATE webhook_attempts SET error = 'sender_lost', detail = 'The sender died before it knew the answer.', ms = 0
          FROM chosen WHERE delivery_id = chosen.id AND ms IS NULL
    ),
    claimed AS (
        UPDATE webhook_deliveries AS delivery
           SET attempts = attempts + 1, tries = tries + 1, ticketed_at = NULL,
               lease_expires_at = now() + make_interval(secs => :lease)
          FROM chosen WHERE delivery.id = chosen.id
        RETURNING delivery.*
    ),
    logged AS (
        INSERT INTO webhook_attempts (delivery_id, number) SELECT id, attempts FROM claimed
    )
    SELECT claimed.id, claimed.attempts, claimed.tries, claimed.type, claimed.created_at, claimed.error_code,
           endpoint.id AS endpoint_id, endpoint.tenant_id, endpoint.url, endpoint.form, endpoint.secrets,
           now() AS now,
           jobs.uuid AS job_uuid, jobs.model, jobs.campaign, jobs.external_id, jobs.traceparent,
           held.id AS campaign_id, held.name AS campaign_name
      FROM claimed JOIN webhook_endpoints AS endpoint ON endpoint.id = claimed.endpoint_id
      LEFT JOIN jobs ON jobs.uuid = claimed.job_uuid
      LEFT JOIN campaigns AS held ON held.id = claimed.campaign_id
    """
)
CLOSE_ATTEMPT: Final = text(
    """
    UPDATE webhook_attempts SET status = :status, error = :error, detail = :detail, ms = :ms
     WHERE delivery_id = :id AND number = :number
    """
)
SUCCEED: Final = text(
    """
    UPDATE webhook_deliveries
       SET state = 'delivered', ended_at = now(), lease_expires_at = NULL, last_status = :status, last_error = NULL
     WHERE id = :id AND attempts = :number AND state <> 'delivered'
    RETURNING id
    """
)
POSTPONE: Final = text(
    """
    UPDATE webhook_deliveries
       SET next_attempt_at = now() + make_interval(secs => :wait), lease_expires_at = NULL,
           last_status = :status, last_error = :error
     WHERE id = :id AND attempts = :number AND state = 'pending'
    RETURNING id
    """
)
GIVE_UP: Final = text(
    """
    UPDATE webhook_deliveries
       SET state = 'failed', ended_at = now(), lease_expires_at = NULL, last_status = :status, last_error = :error
     WHERE id = :id AND attempts = :number AND state = 'pending'
    RETURNING id
    """
)
FORGET: Final = text(
    """
    DELETE FROM webhook_deliveries WHERE id IN (
        SELECT id FROM webhook_deliveries
         WHERE ended_at < now() - make_interval(secs => :age) AND state <> 'pending' LIMIT :limit)
    RETURNING id
    """
)


@dataclass(frozen=True, slots=True)
class Message:
    """The right to send a delivery once; ``now`` is the database's time.

    ``body`` is what the standard form says; the other forms tell of the ``job`` as it is now, unless it is a test.
    """

    id: str
    number: int
    tries: int
    endpoint_id: str
    tenant_id: UUID
    url: str
    form: Form
    secrets: list[dict[str, Any]]
    body: dict[str, Any]
    job: Job | None
    now: datetime
    traceparent: str | None  #: of the call that made its job


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an attempt came to: a status of HTTP, or the code and the sentence of an error; ``ms`` is its time."""

    ms: int
    status: int | None = None
    error: str | None = None
    detail: str | None = None


def add(session: Session, uuid: UUID, status: JobState, problem: Problem | None = None) -> None:
    """The job came to its end: tell its endpoint, if it has one; part of the transaction that ends the job."""
    code = None if problem is None else problem.code
    session.execute(ADD, {"id": new_id(), "uuid": uuid, "type": EVENTS[status], "code": code})


def new_id() -> str:
    """A webhook-id."""
    return random_id("msg_")


def issue(session: Session, room: int, endpoint_id: str | None = None) -> list[str]:
    """Mark up to ``room`` due deliveries as given to the broker, the longest due first; no two issuers give out one.

    Each endpoint has its two oldest ones out; its cost grows with the endpoints that wait, not with their deliveries.
    """
    limits = {"room": room, "per_endpoint": PER_ENDPOINT, "patience": TICKET_PATIENCE}
    if endpoint_id is None:
        return list(session.scalars(ISSUE_TO_ALL, limits))
    return list(session.scalars(ISSUE_TO_ONE, limits | {"endpoint_id": endpoint_id}))


def return_tickets(session: Session, ids: list[str]) -> None:
    """Their tickets could not be sent; they wait for the next round."""
    session.execute(text("UPDATE webhook_deliveries SET ticketed_at = NULL WHERE id = ANY (:ids)"), {"ids": ids})


def claim(session: Session, delivery_id: str, lease: float) -> Message | None:
    """Take one attempt at a delivery that is due, for ``lease`` seconds; None: nothing to do, or somebody has it."""
    row = session.execute(CLAIM, {"id": delivery_id, "lease": lease}).one_or_none()
    if row is None:
        return None
    form, job = Form(row.form), None
    if row.type == TEST_EVENT:
        data = {"webhook": row.endpoint_id}
    elif row.campaign_id is not None:
        counts = campaign_assets.totals(session, row.campaign_id)
        spent = ledger.standing(session, row.tenant_id, row.campaign_name).spent
        data = campaign_data(row.type, row.campaign_id, row.campaign_name, counts, spent)
    elif form is Form.STANDARD:
        data = job_data(row.type, row.job_uuid, row.model, row.campaign, row.external_id, row.error_code)
    else:
        data = {}
        (job,) = load(session, WHOLE.where(Job.uuid == row.job_uuid))
    return Message(
        id=row.id,
        number=row.attempts,
        tries=row.tries,
        endpoint_id=row.endpoint_id,
        tenant_id=row.tenant_id,
        url=row.url,
        form=form,
        secrets=row.secrets,
        body={"type": row.type, "timestamp": milliseconds(row.created_at), "data": data},
        job=job,
        now=row.now,
        traceparent=row.traceparent,
    )


def succeed(session: Session, message: Message, answer: Answer) -> bool:
    """The receiver has it; False: a later attempt counts."""
    return _settle(session, SUCCEED, message, answer)


def postpone(session: Session, message: Message, answer: Answer, *, wait: float, pause: float) -> bool:
    """Try again after ``wait`` seconds; its endpoint is left alone for ``pause`` seconds."""
    if pause:
        session.execute(
            text(
                "UPDATE webhook_endpoints SET paused_until = "
                "greatest(paused_until, now() + make_interval(secs => :pause)) WHERE id = :id"
            ),
            {"id": message.endpoint_id, "pause": pause},
        )
    return _settle(session, POSTPONE, message, answer, wait=wait)


def give_up(session: Session, message: Message, answer: Answer) -> bool:
    """It was the last attempt of the schedule; a replay can start it again."""
    return _settle(session, GIVE_UP, message, answer)


def _settle(session: Session, statement: Any, message: Message, answer: Answer, **more: Any) -> bool:
    found = {"status": answer.status, "error": answer.error, "detail": answer.detail, "ms": answer.ms}
    key = {"id": message.id, "number": message.number}
    session.execute(CLOSE_ATTEMPT, {**key, **found})
    row = session.execute(statement, {**key, "status": answer.status, "error": answer.error, **more}).one_or_none()
    return row is not None


def forget(session: Session, *, older_than: float, limit: int = 1000) -> int:
    """Drop deliveries that ended that many seconds ago; what is still to be delivered is never dropped."""
    return len(session.execute(FORGET, {"age": older_than, "limit": limit}).all())
