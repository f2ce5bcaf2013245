"""A request in fal's queue: where it stands, what came of it, and how it is stopped.

All of it lives under ``owner/app``, also when the endpoint that it was put to has a longer path.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse

from api.airecords import links
from api.auth import Secret, allowed
from api.dialects.fal import serves
from api.dialects.fal_errors import FalError, failure_reply
from api.errors import errors_as
from api.farm import Farm, FarmPart
from api.outcome import check_kept
from api.routes.jobs import CANCELED
from fluxfarm.errors import Conflict, DatabaseUnavailable, NotFound
from fluxfarm.jobs import JobState
from fluxfarm.scopes import Scope
from storage.records import Job
from storage.replies import fal
from storage.repository import explain, jobs, tenants
from storage.signing import jwks

COUNTED: Final = 100  #: the place in the queue is not counted further: its Python client asks ten times a second
HEARTBEAT: Final = 15.0  #: seconds of silence after which a stream says that it lives
REQUEST_ID: Final = "x-fal-request-id"
EVENT_STREAM: Final = "text/event-stream"
IN_PROGRESS: Final = "Request is still in progress"
Logs = Annotated[str, Query(max_length=8, description="`1` or `true`: with what happened so far.")]

router = APIRouter(tags=["fal"])


@router.get("/.well-known/jwks.json", operation_id="readKeySet", responses={200: {"description": "The keys"}})
async def read_key_set(farm: FarmPart) -> Response:
    """The public keys of what signs webhooks in fal's form."""
    return JSONResponse(jwks(farm.sealer), headers={"Cache-Control": "public, max-age=3600"})


@router.get(
    "/fal/queue/{owner}/{app}/requests/{uuid}",
    operation_id="readFalResult",
    responses={200: {"description": "The result"}, **errors_as(FalError, 400, 401, 403, 404, 410, 422, 499, 504)},
)
def read_result(farm: FarmPart, secret: Secret, owner: str, app: str, uuid: UUID) -> Response:
    """Read the result of a request; 400 while there is none."""
    job, _ = _read(farm, secret, f"{owner}/{app}", uuid)
    headers = {REQUEST_ID: str(uuid)}
    if job.status is JobState.SUCCESS:
        check_kept(job)
        return JSONResponse(fal.result(job, picture_urls(farm, job)), headers=headers)
    if job.problem is None or not job.status.is_final:
        return JSONResponse({"detail": IN_PROGRESS}, 400, headers)
    failed = failure_reply(job.problem)
    return JSONResponse(failed.content, failed.status, {**failed.headers, **headers})


@router.get(
    "/fal/queue/{owner}/{app}/requests/{uuid}/status",
    operation_id="readFalStatus",
    responses={
        200: {"description": "The request is over"},
        202: {"description": "It is not"},
        **errors_as(FalError, 401, 403, 404, 422),
    },
)
def read_status(farm: FarmPart, secret: Secret, owner: str, app: str, uuid: UUID, logs: Logs = "") -> Response:
    """Read where a request stands."""
    found, over = _status(farm, secret, f"{owner}/{app}", uuid, logs)
    return JSONResponse(found, 200 if over else 202, {REQUEST_ID: str(uuid)})


@router.get(
    "/fal/queue/{owner}/{app}/requests/{uuid}/status/stream",
    operation_id="followFalStatus",
    responses={
        200: {"description": "Each status", "content": {EVENT_STREAM: {}}},
        **errors_as(FalError, 401, 403, 404, 422),
    },
    response_class=StreamingResponse,
)
async def follow_status(
    farm: FarmPart, secret: Secret, owner: str, app: str, uuid: UUID, logs: Logs = ""
) -> StreamingResponse:
    """Follow a request until it is over."""
    look = partial(_status, farm, secret, f"{owner}/{app}", uuid, logs)
    await run_in_threadpool(look)  # a wrong key or id is an error, and no stream
    headers = {REQUEST_ID: str(uuid), "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(farm, uuid, look), media_type=EVENT_STREAM, headers=headers)


@router.put(
    "/fal/queue/{owner}/{app}/requests/{uuid}/cancel",
    operation_id="cancelFalRequest",
    responses={
        200: {"description": "It had not started"},
        202: {"description": "It is being stopped"},
        **errors_as(FalError, 400, 401, 403, 404),
    },
)
def cancel_request(farm: FarmPart, secret: Secret, owner: str, app: str, uuid: UUID) -> Response:
    """Stop a request within two denoising steps."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.RENDER)
        _check(f"{owner}/{app}", jobs.read(session, key.tenant_id, uuid))
        try:
            job = jobs.cancel(session, key.tenant_id, uuid, CANCELED)
        except Conflict:
            told = {"status": "ALREADY_COMPLETED", "detail": "The request is over."}
            return JSONResponse(told, 400, {REQUEST_ID: str(uuid)})
    farm.notifier.hurry(job.webhook_id)
    word, status = ("CANCELLATION_REQUESTED", 202) if job.attempt else ("OK", 200)
    return JSONResponse({"status": word}, status, {REQUEST_ID: str(uuid)})


def picture_urls(farm: Farm, job: Job) -> list[str]:
    """Temporary links, or with ``sync_mode`` the pictures themselves as data URIs."""
    if not job.prompt_object.get("sync_mode"):
        return links(farm, job)
    bodies = [(image.content_type, farm.store.get(image.object_key)) for image in job.images]
    return [f"data:{kind};base64,{base64.b64encode(body).decode('ascii')}" for kind, body in bodies]


def _check(app: str, job: Job) -> Job:
    if not serves(app, job.model):
        raise NotFound(f"There is no request {job.uuid} of {app[:60]}.")
    return job


def _read(farm: Farm, secret: str, app: str, uuid: UUID) -> tuple[Job, int]:
    """The job and, while it is QUEUED, its place."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
        job = _check(app, jobs.read(session, key.tenant_id, uuid))
        place = explain.standing(session, job, COUNTED) if job.status is JobState.QUEUED else None
    return job, place.before if place is not None else 0


def _status(farm: Farm, secret: str, app: str, uuid: UUID, logs: str) -> tuple[dict[str, Any], bool]:
    job, place = _read(farm, secret, app, uuid)
    url = fal.request_url(farm.settings.base_url, app, uuid)
    return fal.status(job, url, place, logs=logs.lower() in {"1", "true"}), job.status.is_final


async def _stream(farm: Farm, uuid: UUID, look: Callable[[], tuple[dict[str, Any], bool]]) -> AsyncIterator[bytes]:
    said: dict[str, Any] = {}
    with farm.changes.watch(uuid) as changed:
        while True:
            changed.clear()
            try:
                found, over = await run_in_threadpool(look)
            except NotFound:
                return
            except DatabaseUnavailable:
                found, over = said, False
            yield f"data: {json.dumps(found)}\n\n".encode() if found != said else b": still here\n\n"
            said = found
            if over:
                return
            await farm.changes.pause(changed, HEARTBEAT)
