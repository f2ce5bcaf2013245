"""What happens to a job: its events as a stream, and why it is where it is."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from api.auth import Secret, allowed
from api.errors import problems
from api.farm import Farm, FarmPart
from api.happenings import event_stream
from api.replies import reply
from fluxfarm.airecord import Moment
from fluxfarm.errors import InvalidField
from fluxfarm.jobs import JobState
from fluxfarm.routing import RoutePlan
from fluxfarm.scopes import Scope
from storage.database import Session
from storage.records import Job
from storage.repository import explain, jobs, tenants, workers

EVENT_STREAM: Final = "text/event-stream"
_EVENT_ID: Final[dict[str, Any]] = {"pattern": "^[0-9]{0,18}$"}

router = APIRouter(prefix="/v1/jobs/{uuid}", tags=["jobs"])


class Explanation(BaseModel):
    """Why a job waits, or where it went."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    uuid: UUID
    status: JobState
    reason: str
    queue: str
    place: int | None  #: how many jobs go before it, counted to 1,000; null: it does not stand in line
    workers: int  #: live ones that render this model
    retry_at: Moment | None  #: when a job that failed is tried again
    eta: Moment | None  #: when it will be done, from the measured pace of the queue; null: cannot be said
    route: (
        RoutePlan | None
    )  #: who was weighed for the last attempt, or when the job came; null: only the farm itself may


@router.get(
    "/events",
    operation_id="followJob",
    responses={
        200: {
            "description": "The events",
            "content": {
                EVENT_STREAM: {"example": 'id: 0\nevent: status\ndata: {"status": "QUEUED"}\n\n'},
            },
        },
        **problems(400, 401, 403, 404),
    },
    response_class=StreamingResponse,
)
async def follow_job(
    farm: FarmPart,
    secret: Secret,
    uuid: UUID,
    last_event_id: Annotated[str, Header(max_length=32, json_schema_extra=_EVENT_ID)] = "",
    asked: Annotated[str, Query(alias="lastEventId", max_length=32, json_schema_extra=_EVENT_ID)] = "",
) -> StreamingResponse:
    """Follow a job as server-sent events.

    `status` and `progress` events in order, until the job is over, and `preview` ones without an id when the job asked
    for `previews`. Event 0 says QUEUED. With `Last-Event-ID` (or
    `?lastEventId=`) the stream goes on after that event. A comment every 15 s of silence.
    """
    last_id = _event_id(last_event_id or asked)
    job = await run_in_threadpool(_job, farm, secret, uuid)
    stream = event_stream(farm, job, last_id)
    return StreamingResponse(stream, media_type=EVENT_STREAM, headers={"X-Accel-Buffering": "no"})


@router.get(
    "/explain",
    operation_id="explainJob",
    responses={200: {"model": Explanation}, **problems(401, 403, 404)},
)
def explain_job(farm: FarmPart, secret: Secret, uuid: UUID) -> Response:
    """Why a job waits, or where it went."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
        found = explanation(session, jobs.read(session, key.tenant_id, uuid))
    return reply(found)


def explanation(session: Session, job: Job) -> Explanation:
    """Why a job is where it is, at this moment."""
    standing = explain.standing(session, job) if job.status is JobState.QUEUED else None
    cap = explain.reached_cap(session, job) if job.status is JobState.QUEUED else None
    able = sum(job.queue in worker.queues for worker in workers.alive(session))
    eta = explain.expected_end(session, job, standing, able)
    place = None if standing is None else standing.before
    return Explanation(
        uuid=job.uuid,
        status=job.status,
        reason=_reason(job, place, able, cap),
        queue=job.queue,
        place=place,
        workers=able,
        retry_at=job.run_after,
        eta=eta,
        route=_route(job),
    )


def _route(job: Job) -> RoutePlan | None:
    found = next((attempt.route for attempt in reversed(job.attempts) if attempt.route), job.route)
    return None if found is None else RoutePlan.model_validate(found)


def _reason(job: Job, place: int | None, able: int, cap: int | None) -> str:
    attempt = job.attempts[-1] if job.attempts else None
    match job.status:
        case JobState.RUNNING:
            where = attempt.worker if attempt is not None else "a worker"
            return f"Attempt {job.attempt} renders on {where}: step {job.step} of {job.steps}."
        case JobState.SUCCESS:
            return f"Rendered by {attempt.provider if attempt is not None else job.provider}."
        case JobState.FAILED | JobState.CANCELED:
            return job.problem.message if job.problem is not None else f"The job is {job.status}."
        case JobState.QUEUED:
            return _why_it_waits(job, place, able, cap)


def _why_it_waits(job: Job, place: int | None, able: int, cap: int | None) -> str:
    if job.run_after is not None:
        error = f" ({job.problem.message})" if job.problem is not None else ""
        return f"Attempt {job.attempt} failed{error}; the job is tried again at {job.run_after:%Y-%m-%d %H:%M:%S} UTC."
    if not able:
        return f"No live worker renders {job.model}; the job waits until one starts."
    if cap is not None:
        return f"The tenant has {cap} running, which is its cap; the job takes its turn when one of them is over."
    if place is None:
        return "The job does not stand in line any more: its deadline has passed, or a worker is taking it just now."
    if not place:
        return "The job is next: a worker takes it as soon as one is free."
    more = "or more " if place >= explain.COUNTED else ""
    return f"{place} {more}{'job goes' if place == 1 else 'jobs go'} before it in the queue {job.queue}."


def _event_id(text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or len(text) > 18:  # noqa: PLR2004 - below 2^63
        raise InvalidField("Last-Event-ID is not the id of an event; send the last one that came.", param="lastEventId")
    return int(text)


def _job(farm: Farm, secret: str, uuid: UUID) -> Job:
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
        return jobs.read(session, key.tenant_id, uuid)
