"""Jobs that render along with the one whose turn it is, in one call of the pipeline.

A follower has the leader's shape: whatever its request says of the picture, but for the prompt, the seeds and the
file. It stands in the leader's lane, so that no person waits for a campaign; there, the fair order decides, as the
dispatcher's does. Only first starts are taken together: whatever failed, or killed its worker, comes back alone and
takes no other with it twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from fluxfarm.request import RenderRequest
from storage.fairness import Flow
from storage.repository import deliveries, dispatch, turns
from storage.repository.fair import Turn
from storage.repository.turns import Claim, Claimant, Taken

SIGHT: Final = 256  #: jobs that are looked at for followers, shared by the lines of the lane

#: what of a request may differ within a batch; whatever is new is part of the shape until it is named here
APART: Final = (
    *("type", "prompt", "prompt_upsampling", "seeds", "output_format", "output_quality", "previews"),
    *("references", "options", "ignored"),
)
CANDIDATES: Final = text(
    """
    SELECT line.place, job.uuid, job.gpu_seconds, jsonb_array_length(job.request -> 'seeds') AS images
      FROM unnest(CAST(:tenants AS uuid[]), CAST(:campaigns AS text[])) WITH ORDINALITY
           AS line (tenant_id, campaign, place)
     CROSS JOIN LATERAL (
           SELECT uuid, gpu_seconds, attempt, request, priority, seq FROM jobs
            WHERE queue = :queue AND status = 'QUEUED' AND run_after IS NULL
              AND lane = :lane AND tenant_id = line.tenant_id AND campaign = line.campaign
              AND (deadline IS NULL OR deadline > now())
            ORDER BY priority DESC, seq LIMIT :sight) AS job
     WHERE job.attempt = 0
       AND job.request - CAST(:apart AS text[])
         = (SELECT request - CAST(:apart AS text[]) FROM jobs WHERE uuid = :leader)
       AND coalesce(job.request -> 'references', '[]') = '[]'
       AND coalesce(job.request -> 'prompt_upsampling', 'false') = 'false'
     ORDER BY line.place, job.priority DESC, job.seq
    """
)
BY_UUIDS: Final = """
    SELECT uuid, dispatched_at IS NOT NULL AS was_dispatched FROM jobs
     WHERE uuid = ANY (:uuids) AND status = 'QUEUED' AND attempt = 0 AND run_after IS NULL
       AND (deadline IS NULL OR deadline > now())
     ORDER BY uuid
       FOR UPDATE SKIP LOCKED
"""
CLAIM_FOLLOWERS: Final = text(
    turns.CLAIM.format(
        choice=BY_UUIDS,
        message="(CAST(:messages AS text[]))[array_position(CAST(:uuids AS uuid[]), claimed.uuid)]",
    )
)
#: whose uuid a batch is named by is told to the jobs of its own tenant only
NOTE: Final = text(
    """
    UPDATE attempts
       SET batch = jsonb_build_object('position', member.position, 'size', CAST(:size AS integer),
                                      'leader', CASE WHEN jobs.tenant_id = :tenant_id THEN :leader END)
      FROM unnest(CAST(:uuids AS uuid[]), CAST(:positions AS integer[])) AS member (uuid, position)
      JOIN jobs ON jobs.uuid = member.uuid
     WHERE attempts.job_uuid = member.uuid AND attempts.number = jobs.attempt
    """
)

Most = Callable[[RenderRequest], int]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job that may follow."""

    uuid: UUID
    seconds: float
    images: int


def take_together(session: Session, queue: str, ticket: UUID, claimant: Claimant, most: Most) -> list[Claim]:
    """Claim the job whose turn it is, first, and those that follow it.

    Empty: nothing waits, or only what its tenant's cap holds back. A ticket is leave to take one job, most often the
    one that it names: what became more urgent since it was sent goes first, so that nobody waits longer than for the
    render in progress.

    ``most`` says how many pictures of a request may be drawn in one call.
    """
    turn = Turn(session, queue)
    taken = turns.take_first(session, turn, queue, claimant)
    if taken is None:
        if turn.holds_back:
            dispatch.return_ticket(session, queue, ticket)
        return []
    followers, spent = _follow(session, turn, queue, taken, claimant, most)
    dispatch.settle(session, queue, ticket, spent + taken.was_dispatched)
    return [taken.claim, *followers]


def _follow(
    session: Session, turn: Turn, queue: str, taken: Taken, claimant: Claimant, most: Most
) -> tuple[list[Claim], int]:
    """The followers, and how many of them had a ticket."""
    leader = taken.claim
    request = leader.request
    room = most(request) - request.n
    if room < 1 or leader.attempt > 1 or request.references or request.prompt_upsampling:
        return [], 0
    chosen = _choose(session, turn, queue, taken, room)
    if not chosen:
        return [], 0
    uuids = list(chosen)
    messages = [deliveries.new_id() for _ in uuids]
    parameters = claimant.parameters() | {"uuids": uuids, "messages": messages}
    rows = {row.uuid: row for row in session.execute(CLAIM_FOLLOWERS, parameters)}
    claims = [turns.claim_of(rows[uuid]) for uuid in uuids if uuid in rows]
    if claims:
        turn.keep([chosen[claim.uuid] for claim in claims])
        _note(session, [leader, *claims])
    return claims, sum(row.was_dispatched for row in rows.values())


def _choose(session: Session, turn: Turn, queue: str, taken: Taken, room: int) -> dict[UUID, dict[str, object]]:
    """Who follows, in the order of the turns, with what each is to be charged."""
    flows = turn.flows_of_lane(taken.flow.lane)
    lines = _candidates(session, queue, taken, flows, room)
    chosen: dict[UUID, dict[str, object]] = {}
    while room > 0 and (flow := turn.flow_among(flows)) is not None:
        line = lines[flows.index(flow)]
        while line and line[0].images > room:
            line.popleft()
        if not line:
            lines.pop(flows.index(flow))
            flows.remove(flow)
            continue
        follower = line.popleft()
        chosen[follower.uuid] = turn.owe(flow, follower.seconds)
        room -= follower.images
    return chosen


def _candidates(session: Session, queue: str, taken: Taken, flows: list[Flow], room: int) -> list[deque[Candidate]]:
    lines: list[deque[Candidate]] = [deque() for _ in flows]
    if not flows:
        return lines
    parameters = {
        "tenants": [flow.tenant.id for flow in flows],
        "campaigns": [flow.campaign.name for flow in flows],
        "queue": queue,
        "lane": taken.flow.lane,
        "sight": max(room, SIGHT // len(flows)),
        "apart": list(APART),
        "leader": taken.claim.uuid,
    }
    for row in session.execute(CANDIDATES, parameters):
        lines[row.place - 1].append(Candidate(row.uuid, row.gpu_seconds, row.images))
    return lines


def _note(session: Session, claims: list[Claim]) -> None:
    """Write to each attempt where it stands in the batch."""
    positions, size = [], 0
    for claim in claims:
        positions.append(size)
        size += claim.request.n
    parameters = {
        "uuids": [claim.uuid for claim in claims],
        "positions": positions,
        "size": size,
        "leader": str(claims[0].uuid),
        "tenant_id": claims[0].tenant_id,
    }
    session.execute(NOTE, parameters)
