"""What goes into fal's queue, below ``/fal/queue``, and its waiting call, below ``/fal/run``.

Its Python client is pointed here by ``FAL_QUEUE_RUN_HOST`` and ``FAL_RUN_HOST``, the JavaScript one by ``proxyUrl``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from api.auth import Secret
from api.bodies import JsonBody, parse_json
from api.dialects.fal import app_of, read_lane, read_order, read_patience
from api.dialects.fal_errors import FalError
from api.errors import errors_as
from api.farm import Farm, FarmPart
from api.idempotency import REPLAYED, Guard, IdempotencyKey, digest
from api.order import Order
from api.outcome import pictures_of
from api.routes.fal_requests import REQUEST_ID, picture_urls
from api.submit import Accepted, submit
from fluxfarm.errors import MethodNotAllowed
from fluxfarm.webhooks import MAX_URL, Form, Telling
from storage.replies import fal

BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/FalInput"}}},
    }
}
_REQUEST: Final = re.compile(r"[^/]+/[^/]+/requests/[^/]+(/status(/stream)?|/cancel)?")
CREATING: Final = errors_as(FalError, 400, 401, 403, 404, 409, 413, 415, 422)
Priority = Annotated[str, Header(alias="X-Fal-Queue-Priority", description="`low` goes to the lane `bulk`.")]
Patience = Annotated[
    str, Header(alias="X-Fal-Request-Timeout", description="Seconds within which the request must have started.")
]
Target = Annotated[
    str | None, Query(alias="fal_webhook", min_length=1, max_length=MAX_URL, description="Who is told of the end.")
]

router = APIRouter(prefix="/fal", tags=["fal"])


def _check_put(endpoint: str) -> None:
    """A request that was put into the queue is no endpoint, whatever its path begins with."""
    if _REQUEST.fullmatch(endpoint):
        raise HTTPException(MethodNotAllowed.status)


@router.post(
    "/queue/{endpoint:path}",
    operation_id="submitFalRequest",
    dependencies=[Depends(_check_put)],
    responses={200: {"description": "It is in the queue"}, **CREATING},
    openapi_extra=BODY,
)
async def submit_request(
    farm: FarmPart,
    secret: Secret,
    endpoint: str,
    body: JsonBody,
    idempotency_key: IdempotencyKey,
    webhook: Target = None,
    priority: Priority = "normal",
    patience: Patience = "",
) -> Response:
    """Put a request into the queue."""
    accepted = await _accept(farm, secret, endpoint, body, idempotency_key, webhook, priority, patience)
    url = fal.request_url(farm.settings.base_url, app_of(endpoint), accepted.job.uuid)
    found = fal.status(accepted.job, url, None, logs=False) | {"status": "IN_QUEUE", "queue_position": 0}
    return JSONResponse(found, headers=_headers(accepted))


@router.post(
    "/run/{endpoint:path}",
    operation_id="runFalRequest",
    responses={200: {"description": "The result"}, **CREATING, **errors_as(FalError, 499, 504)},
    openapi_extra=BODY,
)
async def run_request(
    farm: FarmPart,
    secret: Secret,
    request: Request,
    endpoint: str,
    body: JsonBody,
    idempotency_key: IdempotencyKey,
    priority: Priority = "normal",
    patience: Patience = "",
) -> Response:
    """Draw pictures, and answer when they are there."""
    accepted = await _accept(farm, secret, endpoint, body, idempotency_key, None, priority, patience)
    job = await pictures_of(farm, request, accepted.job)
    urls = await run_in_threadpool(picture_urls, farm, job)
    return JSONResponse(fal.result(job, urls), headers=_headers(accepted))


async def _accept(
    farm: Farm,
    secret: str,
    endpoint: str,
    body: bytes,
    key: str | None,
    webhook: str | None,
    priority: str,
    patience: str,
) -> Accepted:
    parsed = cache(partial(parse_json, body))

    def order() -> Order:
        return replace(
            read_order(endpoint, parsed()),
            lane=read_lane(priority),
            deadline=read_patience(patience, datetime.now(UTC)),
            webhook=webhook,
            telling=Telling(Form.FAL),
        )

    guard = Guard.of(key, lambda: digest(f"/fal/{endpoint}", parsed()))
    return await submit(farm, secret, order, guard, size=len(body))


def _headers(accepted: Accepted) -> dict[str, str]:
    replayed = {} if accepted.replayed is None else {REPLAYED: "true"}
    return {REQUEST_ID: str(accepted.job.uuid)} | replayed
