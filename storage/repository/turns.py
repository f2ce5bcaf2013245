"""Whose turn it is, and the claim: QUEUED to RUNNING in one statement, with its attempt, its event and its charge.

A claim is made while the device waits for it, so each round trip counts; that is why this is plain SQL.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from fluxfarm.request import RenderRequest
from fluxfarm.routing import RoutePlan
from storage.fairness import Flow
from storage.repository import deliveries
from storage.repository.events import JOB_CHANGED
from storage.repository.fair import Turn

BY_UUID: Final = """
    SELECT uuid, dispatched_at IS NOT NULL AS was_dispatched FROM jobs
     WHERE uuid = :uuid AND status = 'QUEUED' AND (run_after IS NULL OR run_after <= now())
       AND (deadline IS NULL OR deadline > now())
       FOR UPDATE SKIP LOCKED
"""
FIRST_OF_FLOW: Final = """
    SELECT uuid, dispatched_at IS NOT NULL AS was_dispatched FROM jobs
     WHERE queue = :queue AND status = 'QUEUED' AND run_after IS NULL
       AND lane = :lane AND tenant_id = :tenant_id AND campaign = :campaign
       AND (deadline IS NULL OR deadline > now())
     ORDER BY priority DESC, seq LIMIT 1
       FOR UPDATE SKIP LOCKED
"""
CLAIM: Final = """
    WITH chosen AS MATERIALIZED ({choice}),
    claimed AS (
        UPDATE jobs
           SET status = 'RUNNING', attempt = jobs.attempt + 1, worker_id = :worker_id, step = 0, started_at = now(),
               lease_expires_at = now() + make_interval(secs => :lease), run_after = NULL, dispatched_at = NULL
          FROM chosen WHERE jobs.uuid = chosen.uuid
        RETURNING jobs.uuid, jobs.tenant_id, jobs.attempt, jobs.request, jobs.gpu_seconds, jobs.webhook_id,
                  jobs.model, jobs.campaign, jobs.route, jobs.deadline, jobs.revised_prompt, jobs.traceparent,
                  chosen.was_dispatched,
                  extract(epoch FROM now() - jobs.created_at) AS queued_seconds
    ),
    started AS (
        INSERT INTO attempts (job_uuid, number, provider, worker, status, model, route, seeds, effective, ignored)
        SELECT uuid, attempt, :provider, :worker, 'RUNNING', model, route,
               ARRAY(SELECT jsonb_array_elements_text(request -> 'seeds')::bigint),
               request - ARRAY['type', 'model', 'prompt', 'prompt_upsampling', 'references', 'previews', 'options',
                               'ignored', 'seeds'],
               ARRAY(SELECT jsonb_array_elements_text(request -> 'ignored'))
          FROM claimed
    ),
    told AS (
        INSERT INTO events (job_uuid, kind, payload)
        SELECT uuid, 'status', jsonb_build_object('status', 'RUNNING') FROM claimed
    ),
    outbox AS (
        INSERT INTO webhook_deliveries (id, endpoint_id, job_uuid, type)
        SELECT {message}, endpoint.id, claimed.uuid, 'job.started'
          FROM claimed JOIN webhook_endpoints AS endpoint ON endpoint.id = claimed.webhook_id
         WHERE claimed.attempt = 1 AND 'start' = ANY (endpoint.moments) AND endpoint.disabled_at IS NULL
           FOR KEY SHARE OF endpoint
    )
    SELECT claimed.*, pg_notify(:channel, uuid::text) FROM claimed
"""
CLAIM_BY_UUID: Final = text(CLAIM.format(choice=BY_UUID, message=":message"))
CLAIM_FIRST: Final = text(CLAIM.format(choice=FIRST_OF_FLOW, message=":message"))


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to render a job, good for as long as the lease is renewed."""

    uuid: UUID
    tenant_id: UUID
    attempt: int
    request: RenderRequest
    queued_seconds: float
    webhook_id: str | None = None
    campaign: str = ""
    route: RoutePlan | None = None  #: what was weighed when the job came; None: nobody but the farm's own workers
    deadline: datetime | None = None
    traceparent: str | None = None  #: of the call that made the job


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """Who claims: a worker process, what it renders with, and for how many seconds it is trusted."""

    worker_id: UUID
    worker: str
    provider: str
    lease: float

    def parameters(self) -> dict[str, Any]:
        """For the statements above."""
        return {
            "worker_id": self.worker_id,
            "worker": self.worker,
            "provider": self.provider,
            "lease": self.lease,
            "channel": JOB_CHANGED,
            "message": deliveries.new_id(),
        }


def request_of(row: Any) -> RenderRequest:
    """What is to be drawn, with the prompt that an upsampler made of it, if one did."""
    request = RenderRequest.model_validate(row.request)
    if row.revised_prompt is None:
        return request
    return request.model_copy(update={"prompt": row.revised_prompt, "prompt_upsampling": False})


def claim_of(row: Any) -> Claim:
    """What one row of the statements above says."""
    return Claim(
        uuid=row.uuid,
        tenant_id=row.tenant_id,
        attempt=row.attempt,
        request=request_of(row),
        queued_seconds=float(row.queued_seconds),
        webhook_id=row.webhook_id,
        campaign=row.campaign,
        route=None if row.route is None else RoutePlan.model_validate(row.route),
        deadline=row.deadline,
        traceparent=row.traceparent,
    )


def claim(session: Session, uuid: UUID, claimant: Claimant) -> Claim | None:
    """Claim this very job if it waits and is due; None: nothing to do. No share is charged."""
    row = session.execute(CLAIM_BY_UUID, {"uuid": uuid, **claimant.parameters()}).one_or_none()
    return None if row is None else claim_of(row)


@dataclass(frozen=True, slots=True)
class Taken:
    """The job whose turn it was, the line that it stood in, and whether a ticket was out for it."""

    claim: Claim
    flow: Flow
    was_dispatched: bool


def take_first(session: Session, turn: Turn, queue: str, claimant: Claimant) -> Taken | None:
    """Claim and charge the first job of the turn; the tickets are left as they are."""
    while (flow := turn.flow()) is not None:
        row = session.execute(CLAIM_FIRST, _place(queue, flow) | claimant.parameters()).one_or_none()
        if row is not None:
            turn.charge(flow, row.gpu_seconds)
            return Taken(claim_of(row), flow, row.was_dispatched)
        turn.skip(flow)
    return None


def _place(queue: str, flow: Flow) -> dict[str, Any]:
    return {"queue": queue, "lane": flow.lane, "tenant_id": flow.tenant.id, "campaign": flow.campaign.name}
