"""Jobs: accept, read, list, cancel, erase."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, partial
from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.airecords import CURSOR, JobPage, JobReply, ai_record, make_cursor, read_cursor
from api.auth import Secret, allowed, key_of_caller, note_use
from api.bodies import JsonBody, parse_json, read_json_body
from api.dialects.native import read_order
from api.dialects.native_body import EXAMPLES
from api.errors import problems
from api.farm import Farm, FarmPart, the_farm
from api.idempotency import Guard, IdempotencyKey, digest, read_key
from api.replies import reply
from api.straight import StraightRoute, goes_straight
from api.strict import PLAIN
from api.submit import ACCEPTED, POLL_AFTER, Rehearsal, accepted_headers, rehearse, submit
from api.waiting import until_over
from fluxfarm.airecord import Moment, Problem, Usd
from fluxfarm.errors import Canceled, FluxfarmError
from fluxfarm.jobs import JobState
from fluxfarm.remotes import LOCAL
from fluxfarm.routing import RoutePlan
from fluxfarm.scopes import Scope
from storage.objects import job_prefix
from storage.records import Job
from storage.repository import jobs, tenants

LONGEST_WAIT: Final = 60  #: seconds
PREFER_WAIT: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\b", re.IGNORECASE)
USUAL_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")  #: as the farm writes it
CANCELED: Final = Problem(code=Canceled.code, message="The caller canceled the job.", retryable=False)

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=StraightRoute)


class Listing(BaseModel):
    """Which jobs, and how many."""

    model_config = ConfigDict(extra="forbid")

    status: JobState | None = None
    campaign: str | None = Field(None, max_length=200, pattern=PLAIN)
    tag: str | None = Field(None, max_length=64, pattern=PLAIN)
    error: str | None = Field(None, max_length=64, pattern=PLAIN, description="The code of the job's error.")
    external_id: str | None = Field(None, alias="externalId", max_length=200, pattern=PLAIN)
    cursor: str | None = Field(
        None, max_length=64, description="`nextCursor` of the page before.", json_schema_extra={"pattern": CURSOR}
    )
    limit: int = Field(50, ge=1, le=200)


class RehearsalReply(BaseModel):
    """What a call would do; nothing of it was stored or spent."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    dry_run: Literal[True] = True
    provider: str = Field(description="Who would render it first.")
    price: Usd = Field(description="USD that would be reserved for it.")
    eta: Moment | None = Field(description="When it would be done, from the pace of the queue; null: cannot be said.")
    queue: str
    gpu_seconds: float
    route: RoutePlan | None = Field(description="Everybody who was weighed; null: only the farm itself may render it.")


HEADERS: Final = {
    "Location": {"description": "Where the job is read.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds until a look is worth it.", "schema": {"type": "integer"}},
    "Preference-Applied": {"description": "`wait=N`, when it was asked for.", "schema": {"type": "string"}},
}


async def _create_straight(request: Request) -> Response | None:
    if request.scope["query_string"] or "prefer" in request.headers:
        return None
    farm = await the_farm(request)
    secret = await key_of_caller(request)
    body = await read_json_body(request, farm, secret)
    return await create_job(farm, secret, body, await read_key(request, secret))


async def _read_straight(request: Request) -> Response | None:
    if request.scope["query_string"] or not USUAL_UUID.fullmatch(request.path_params["uuid"]):
        return None
    farm = await the_farm(request)
    return await read_job(farm, await key_of_caller(request), UUID(request.path_params["uuid"]))


@router.post(
    "",
    operation_id="createJob",
    status_code=202,
    responses={
        202: {"model": JobReply, "description": "Stored; not over yet", "headers": HEADERS},
        200: {
            "model": JobReply | RehearsalReply,
            "description": "Stored, and over within the time of `Prefer: wait`; or, with `dryRun`, what would be done",
        },
        **problems(400, 401, 402, 403, 404, 409, 413, 415, 422),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/NewJob"}, "examples": EXAMPLES}},
        }
    },
)
@goes_straight(_create_straight)
async def create_job(
    farm: FarmPart,
    secret: Secret,
    body: JsonBody,
    idempotency_key: IdempotencyKey,
    dry_run: Annotated[
        bool, Query(alias="dryRun", description="Tell the route and the price, and do nothing.")
    ] = False,
    prefer: Annotated[str, Header(description="`wait=N`: seconds to wait for the job's end, at most 60.")] = "",
) -> Response:
    """Accept a job.

    The job is stored when the reply leaves. With `Prefer: wait=N` (at most 60 s) the reply waits: 200 when the job
    was over within that time, 202 otherwise.

    With an `Idempotency-Key` the call may be repeated: it makes one job. A replay shows that job as it is now.
    """
    parsed = cache(partial(parse_json, body))
    if dry_run:
        return reply(_rehearsal(await rehearse(farm, secret, lambda: read_order(parsed(), datetime.now(UTC)))))
    guard = Guard.of(idempotency_key, lambda: digest("/v1/jobs", parsed()))
    accepted = await submit(farm, secret, lambda: read_order(parsed(), datetime.now(UTC)), guard, size=len(body))
    job, status = accepted.job, accepted.replayed or ACCEPTED
    headers = accepted_headers(farm, accepted)
    preferred = PREFER_WAIT.search(prefer)
    if preferred is not None:
        seconds = min(int(preferred[1]), LONGEST_WAIT)
        headers["Preference-Applied"] = f"wait={seconds}"
        with suppress(FluxfarmError):  # the job is stored: no trouble in waiting may make this call look failed
            job = await until_over(farm.polls, farm.changes, job.tenant_id, job.uuid, seconds)
            status = 200 if job.status.is_final else ACCEPTED
    if job.status.is_final:
        headers.pop("Retry-After", None)
    return reply(JobReply(ai_record=ai_record(farm, job)), status, headers)


@router.get(
    "",
    operation_id="listJobs",
    responses={200: {"model": JobPage}, **problems(400, 401, 403)},
)
def list_jobs(farm: FarmPart, secret: Secret, wanted: Annotated[Listing, Query()]) -> Response:
    """List jobs, the newest first."""
    before = read_cursor(wanted.cursor)
    only = jobs.Filter(
        status=wanted.status,
        campaign=wanted.campaign,
        tag=wanted.tag,
        error=wanted.error,
        external_id=wanted.external_id,
    )
    with farm.database.statements() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
    page = farm.replica.read(
        lambda session: jobs.list_page(session, key.tenant_id, only, before=before, limit=wanted.limit)
    )
    records = [ai_record(farm, job) for job in page.jobs]
    return reply(JobPage(data=records, next_cursor=make_cursor(page.next_before)))


@router.get(
    "/{uuid}",
    operation_id="readJob",
    responses={200: {"model": JobReply}, **problems(400, 401, 403, 404)},
)
@goes_straight(_read_straight)
async def read_job(
    farm: FarmPart,
    secret: Secret,
    uuid: UUID,
    wait: Annotated[int, Query(ge=0, le=LONGEST_WAIT, description="Seconds to wait until the job is over.")] = 0,
) -> Response:
    """Read a job, or wait for its end."""
    job = await _read(farm, secret, uuid)
    if wait and not job.status.is_final:
        job = await until_over(farm.polls, farm.changes, job.tenant_id, uuid, wait)
    headers = {} if job.status.is_final else {"Retry-After": POLL_AFTER}
    return reply(JobReply(ai_record=ai_record(farm, job)), headers=headers)


@router.post(
    "/{uuid}/cancel",
    operation_id="cancelJob",
    responses={200: {"model": JobReply}, **problems(401, 403, 404, 409)},
)
def cancel_job(farm: FarmPart, secret: Secret, uuid: UUID) -> Response:
    """Stop a job within two denoising steps."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.RENDER)
        job = jobs.cancel(session, key.tenant_id, uuid, CANCELED)
    farm.notifier.hurry(job.webhook_id)
    return reply(JobReply(ai_record=ai_record(farm, job)))


@router.delete(
    "/{uuid}",
    operation_id="eraseJob",
    status_code=204,
    responses=problems(401, 403, 404),
)
def erase_job(farm: FarmPart, secret: Secret, uuid: UUID) -> Response:
    """Erase a job: its record, prompt, events and pictures.

    A job that is rendered is stopped. Uploaded references are not the job's and stay.
    """
    farm.store.check()  # with the store down the record would be gone and its pictures would stay
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.RENDER)
        jobs.erase(session, key.tenant_id, uuid)
    farm.previews.forget(uuid)
    farm.store.delete_prefix(job_prefix(key.tenant_id, uuid))
    return Response(status_code=204)


def _rehearsal(found: Rehearsal) -> RehearsalReply:
    plan = None if found.job.route is None else RoutePlan.model_validate(found.job.route)
    return RehearsalReply(
        provider=LOCAL if plan is None or plan.choice is None else plan.choice,
        price=found.price,
        eta=found.eta,
        queue=found.job.queue,
        gpu_seconds=found.job.gpu_seconds,
        route=plan,
    )


async def _read(farm: Farm, secret: str, uuid: UUID) -> Job:
    job, key = await farm.polls.read_as(secret, uuid, lambda key: allowed(key, Scope.READ))
    if key.use_is_due:
        await run_in_threadpool(note_use, farm, key)
    return job
