"""OpenAI's images calls: they wait until the pictures are there. Also below ``/openai``, as Lumenfall has them."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from functools import cache, partial
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from api.airecords import ai_record, links
from api.auth import Secret, check_caller
from api.bodies import JsonBody, media_type, parse_json, read_json_body
from api.dialects.openai import ImagesOrder, read_edit, read_form, read_generation
from api.dialects.openai_errors import OpenAIError, error_object
from api.dialects.openai_replies import ImageData, ImagesReply, completed_event, images_reply, partial_event
from api.errors import errors_as
from api.farm import Farm, FarmPart
from api.forms import literal
from api.forms import read_form as read_multipart
from api.happenings import STILL_HERE, happenings
from api.idempotency import REPLAYED, Guard, IdempotencyKey, digest, guarded
from api.outcome import over, pictures_of
from api.replies import reply
from api.submit import submit
from api.uploads import said
from fluxfarm.catalog import find_model
from fluxfarm.errors import FluxfarmError
from storage.records import Job

EVENT_STREAM: Final = "text/event-stream"
RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "model": ImagesReply,
        "description": "The pictures; with `stream` server-sent events",
        "content": {EVENT_STREAM: {}},
    },
    **errors_as(OpenAIError, 400, 401, 403, 404, 409, 413, 415, 422, 504),
}
ReadOrder = Callable[[], ImagesOrder]


def _body(*kinds: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/ImagesCall"}
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in kinds}}}


router = APIRouter(prefix="/v1/images", tags=["OpenAI"])


@router.post("/generations", name="createImage", responses=RESPONSES, openapi_extra=_body("application/json"))
async def create_image(
    farm: FarmPart, secret: Secret, request: Request, body: JsonBody, idempotency_key: IdempotencyKey
) -> Response:
    """Draw pictures, and answer when they are there.

    After `FLUXFARM_LONGEST_WAIT` seconds the call ends with 504 and the job's id; the job goes on. A caller that hangs
    up stops nothing.
    """
    parsed = cache(partial(parse_json, body))
    order = cache(lambda: read_generation(parsed(), _default(farm)))
    guard = guarded(request, secret, idempotency_key, lambda: digest("/v1/images/generations", parsed()))
    return await _answer(farm, secret, request, order, guard, len(body))


@router.post(
    "/edits",
    name="editImage",
    responses=RESPONSES,
    openapi_extra=_body("application/json", "multipart/form-data"),
)
async def edit_image(farm: FarmPart, secret: Secret, request: Request, idempotency_key: IdempotencyKey) -> Response:
    """Edit pictures: a multipart form with files in `image`, or JSON with `images`."""
    if media_type(request)[0] == "application/json":
        body = await read_json_body(request, farm, secret)
        parsed = cache(partial(parse_json, body))
        order = cache(lambda: read_edit(parsed(), _default(farm)))
        guard = guarded(request, secret, idempotency_key, lambda: digest("/v1/images/edits", parsed()))
        return await _answer(farm, secret, request, order, guard)
    await check_caller(farm, secret)
    form = await read_multipart(request, farm.settings.upload_limit)
    fields = {name: literal(value) if name not in {"prompt", "user"} else value for name, value in form.fields.items()}
    order = cache(lambda: read_form(fields, form.files, _default(farm)))

    def call() -> bytes:
        return digest("/v1/images/edits", said(fields, [(file.name, file.body) for file in form.files]))

    return await _answer(farm, secret, request, order, guarded(request, secret, idempotency_key, call))


def _default(farm: Farm) -> str:
    """The model of a call that names none: the first that this farm renders."""
    return find_model(farm.settings.models[0].slug).slug


async def _answer(
    farm: Farm, secret: str, request: Request, order: ReadOrder, guard: Guard | None, size: int | None = None
) -> Response:
    accepted = await submit(farm, secret, lambda: order().order, guard, size=size)
    asked = await run_in_threadpool(order)
    headers = {"x-fluxfarm-job": str(accepted.job.uuid)}
    if accepted.replayed is not None:
        headers[REPLAYED] = "true"
    if asked.stream:
        events = _events(farm, accepted.job)
        return StreamingResponse(events, media_type=EVENT_STREAM, headers={**headers, "X-Accel-Buffering": "no"})
    job = await pictures_of(farm, request, accepted.job)
    return reply(await run_in_threadpool(_reply, farm, job, asked.as_base64), headers=headers)


async def _events(farm: Farm, job: Job) -> AsyncIterator[bytes]:
    """Previews as they come, then the pictures; a stream waits as long as its reader does."""
    try:
        async for happening in happenings(farm, job, 0):
            if happening is None:
                yield STILL_HERE
            elif happening.preview is not None:
                image = base64.b64encode(happening.preview.body).decode()
                yield _line(partial_event(job, image, happening.preview.index))
        job = await over(farm, job)
        for index in range(len(job.images)):
            yield _line(completed_event(job, await run_in_threadpool(_base64, farm, job, index)))
    except FluxfarmError as error:
        yield _line({"error": error_object(error)})


def _line(event: dict[str, Any]) -> bytes:
    kind = event.get("type", "error")
    return f"event: {kind}\ndata: {json.dumps(event)}\n\n".encode()


def _reply(farm: Farm, job: Job, as_base64: bool) -> ImagesReply:
    pictures = [
        ImageData(
            b64_json=_base64(farm, job, index) if as_base64 else None,
            url=None if as_base64 else url,
            revised_prompt=job.revised_prompt,
        )
        for index, url in enumerate(links(farm, job))
    ]
    return images_reply(job, ai_record(farm, job), pictures)


def _base64(farm: Farm, job: Job, index: int) -> str:
    return base64.b64encode(farm.store.get(job.images[index].object_key)).decode()
