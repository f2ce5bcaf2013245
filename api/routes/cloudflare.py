"""Cloudflare Workers AI's call: it waits for its picture, which comes in the reply."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from api.auth import Secret, check_caller
from api.bodies import media_type, parse_json, read_json_body
from api.dialects.cloudflare import PICTURE, CloudflareEnvelope, envelope, from_form, pictures_in, read_order
from api.dialects.cloudflare_errors import CloudflareError
from api.errors import errors_as
from api.farm import Farm, FarmPart
from api.forms import read_form
from api.idempotency import REPLAYED, IdempotencyKey, digest, guarded
from api.outcome import pictures_of
from api.submit import submit
from api.uploads import said
from storage.records import Job

JOB: Final = "x-fluxfarm-job"
_SCHEMA: Final = {"schema": {"$ref": "#/components/schemas/CloudflareRun"}}

router = APIRouter(prefix="/client/v4/accounts/{account}/ai/run", tags=["Cloudflare"])


@router.post(
    "/{model:path}",
    operation_id="runOnCloudflare",
    responses={
        200: {"model": CloudflareEnvelope, "description": "The picture"},
        **errors_as(CloudflareError, 400, 401, 403, 404, 408, 409, 413, 422, 429),
    },
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": _SCHEMA, "multipart/form-data": _SCHEMA}}
    },
)
async def run_model(
    farm: FarmPart,
    secret: Secret,
    request: Request,
    account: Annotated[str, Path(max_length=200, description="Any; the key says whose call it is.")],
    model: str,
    idempotency_key: IdempotencyKey,
) -> Response:
    """Draw or edit a picture, and answer with it in base64.

    After `FLUXFARM_LONGEST_WAIT` seconds the call ends with code 3007; the job, which `x-fluxfarm-job` names, goes on.
    """
    body, files = await _read(farm, secret, request)
    path = f"/client/v4/accounts/{account}/ai/run/{model}"
    call = cache(lambda: digest(path, said(body(), [(PICTURE, file) for file in files])))
    guard = guarded(request, secret, idempotency_key, call)
    accepted = await submit(farm, secret, lambda: read_order(model, body(), files), guard)
    job = await pictures_of(farm, request, accepted.job)
    headers = {JOB: str(job.uuid)} | ({} if accepted.replayed is None else {REPLAYED: "true"})
    return await run_in_threadpool(_reply, farm, job, headers)


async def _read(farm: Farm, secret: str, request: Request) -> tuple[Callable[[], dict[str, Any]], list[bytes]]:
    """The fields, which are parsed once the caller is known, and the pictures of a form."""
    if media_type(request)[0] == "multipart/form-data":
        await check_caller(farm, secret)
        form = await read_form(request, farm.settings.upload_limit)
        return cache(lambda: from_form(form.fields)), pictures_in(form.files)
    raw = await read_json_body(request, farm, secret)
    return cache(lambda: parse_json(raw)), []


def _reply(farm: Farm, job: Job, headers: dict[str, str]) -> Response:
    return JSONResponse(envelope(farm.store.get(job.images[0].object_key)), headers=headers)
