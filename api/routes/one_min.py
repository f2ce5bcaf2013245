"""1min.ai's calls: a feature waits for its picture, and one that waited too long is read again by its uuid."""

from __future__ import annotations

from functools import cache, partial
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from api.airecords import links
from api.auth import Secret, allowed, check_caller
from api.bodies import JsonBody, parse_json
from api.creation import Making
from api.dialects.one_min import ai_record, asset, read_order
from api.dialects.one_min_errors import OneMinError
from api.errors import errors_as
from api.farm import Farm, FarmPart
from api.forms import read_form
from api.idempotency import REPLAYED, Guard, IdempotencyKey, digest
from api.outcome import pictures_of
from api.submit import ACCEPTED, POLL_AFTER, submit
from api.uploads import keep, said
from fluxfarm.errors import InvalidField, StillRendering
from fluxfarm.scopes import Scope
from storage.records import Job
from storage.repository import jobs, tenants

ASSET: Final = "asset"
_FORM: Final = {
    "type": "object",
    "required": [ASSET],
    "properties": {ASSET: {"type": "string", "format": "binary", "description": "A PNG, JPEG or WebP."}},
}

router = APIRouter(prefix="/api", tags=["1min.ai"])


@router.post(
    "/features",
    operation_id="oneMinFeature",
    responses={
        200: {"description": "The aiRecord, with its picture"},
        202: {"description": "It is not over yet: read it at `/api/features/{uuid}`"},
        **errors_as(OneMinError, 400, 401, 403, 404, 409, 413, 415, 422),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Feature"}}},
        }
    },
)
async def run_feature(
    farm: FarmPart, secret: Secret, request: Request, body: JsonBody, idempotency_key: IdempotencyKey
) -> Response:
    """Draw or edit a picture, and answer when it is there.

    After `FLUXFARM_LONGEST_WAIT` seconds the reply is a 202 with the aiRecord as it is then; the job goes on.
    """
    parsed = cache(partial(parse_json, body))
    guard = Guard.of(idempotency_key, lambda: digest("/api/features", parsed()))
    accepted = await submit(farm, secret, lambda: read_order(parsed()), guard, size=len(body))
    headers = {} if accepted.replayed is None else {REPLAYED: "true"}
    try:
        job = await pictures_of(farm, request, accepted.job)
    except StillRendering:
        job = await run_in_threadpool(_read, farm, secret, accepted.job.uuid)
    return _answer(farm, job, headers)


@router.get(
    "/features/{uuid}",
    operation_id="readOneMinFeature",
    responses={
        200: {"description": "The aiRecord of a job that is over"},
        202: {"description": "The aiRecord of one that is not"},
        **errors_as(OneMinError, 401, 403, 404),
    },
)
def read_feature(farm: FarmPart, secret: Secret, uuid: UUID) -> Response:
    """Read an aiRecord; 1min.ai itself has no such call."""
    return _answer(farm, _read(farm, secret, uuid), {})


@router.post(
    "/assets",
    operation_id="uploadOneMinAsset",
    responses={
        200: {"description": "Where it is: `fileContent.path` is what `imageUrl` takes"},
        **errors_as(OneMinError, 400, 401, 403, 413, 415),
    },
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
)
async def upload_asset(farm: FarmPart, secret: Secret, creation: Making, request: Request) -> Response:
    """Upload a picture to edit."""
    await check_caller(farm, secret)
    form = await read_form(request, farm.settings.upload_limit)
    if [file.name for file in form.files] != [ASSET]:
        raise InvalidField(f"The form must hold one file, in the field {ASSET!r}.", param=ASSET)
    body = form.files[0].body
    await run_in_threadpool(creation.enter, Scope.RENDER, said({}, [(ASSET, body)]))
    kept = JSONResponse(asset(await keep(farm, secret, body, ASSET)))
    return await run_in_threadpool(creation.close, kept)


def _read(farm: Farm, secret: str, uuid: UUID) -> Job:
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
        return jobs.read(session, key.tenant_id, uuid)


def _answer(farm: Farm, job: Job, headers: dict[str, Any]) -> Response:
    if job.status.is_final:
        return JSONResponse(ai_record(job, links(farm, job)), headers=headers)
    here = f"{farm.settings.base_url}/api/features/{job.uuid}"
    return JSONResponse(ai_record(job, []), ACCEPTED, {**headers, "Location": here, "Retry-After": POLL_AFTER})
