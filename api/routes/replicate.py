"""Replicate's predictions, below ``/replicate/v1``: ``REPLICATE_BASE_URL`` is the farm's URL and ``/replicate``."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from api.airecords import CURSOR, make_cursor, read_cursor
from api.auth import Secret, allowed
from api.bodies import JsonBody, parse_json
from api.dialects.replicate import read_order, read_period
from api.dialects.replicate_errors import ReplicateError
from api.errors import errors_as
from api.farm import Farm, FarmPart
from api.idempotency import REPLAYED, Guard, IdempotencyKey, digest
from api.order import Order
from api.routes.jobs import CANCELED
from api.submit import submit
from api.waiting import until_over
from fluxfarm.errors import Conflict, FluxfarmError
from fluxfarm.scopes import Scope
from storage.records import Job
from storage.replies.replicate import prediction, still_starting
from storage.repository import jobs, tenants
from storage.signing import replicate_secrets

PREFIX: Final = "/replicate/v1"
CREATED: Final = 201
LONGEST_WAIT: Final = 60  #: seconds; also of a Prefer that names none
MARGIN: Final = 0.5  #: seconds before the wait is over: the Python client hangs up half a second after it
PER_PAGE: Final = 100
PREFER: Final = re.compile(r"(?:^|[,;\s])wait(?:\s*=\s*\"?(\d{1,6})\b)?", re.IGNORECASE)
BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/NewPrediction"}}},
    }
}
RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    201: {"description": "The prediction"},
    **errors_as(ReplicateError, 400, 401, 403, 404, 409, 413, 415, 422),
}
Prefer = Annotated[str, Header(description="`wait` or `wait=N`: seconds to wait for the end, at most 60.")]
CancelAfter = Annotated[
    str, Header(alias="Cancel-After", description="`90s`, `1m`, `1h30m`: by when it must have started, else `aborted`.")
]

router = APIRouter(prefix=PREFIX, tags=["Replicate"])


class DefaultSecret(BaseModel):
    """What signs the webhooks of predictions."""

    key: str


@router.post("/predictions", operation_id="createPrediction", status_code=201, responses=RESPONSES, openapi_extra=BODY)
async def create_prediction(
    farm: FarmPart,
    secret: Secret,
    body: JsonBody,
    idempotency_key: IdempotencyKey,
    prefer: Prefer = "",
    cancel_after: CancelAfter = "",
) -> Response:
    """Make a prediction; `version` names the model."""
    return await _create(farm, secret, body, idempotency_key, None, prefer, cancel_after)


@router.post(
    "/models/{owner}/{name}/predictions",
    operation_id="createModelPrediction",
    status_code=201,
    responses=RESPONSES,
    openapi_extra=BODY,
)
async def create_model_prediction(
    farm: FarmPart,
    secret: Secret,
    owner: str,
    name: str,
    body: JsonBody,
    idempotency_key: IdempotencyKey,
    prefer: Prefer = "",
    cancel_after: CancelAfter = "",
) -> Response:
    """Make a prediction with the model of the path."""
    return await _create(farm, secret, body, idempotency_key, f"{owner}/{name}", prefer, cancel_after)


@router.get(
    "/predictions",
    operation_id="listPredictions",
    responses={200: {"description": "Some predictions"}, **errors_as(ReplicateError, 401, 403, 422)},
)
def list_predictions(
    farm: FarmPart, secret: Secret, cursor: Annotated[str | None, Query(json_schema_extra={"pattern": CURSOR})] = None
) -> Response:
    """List the tenant's jobs as predictions, the newest first."""
    before = read_cursor(cursor)
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
    page = farm.replica.read(
        lambda session: jobs.list_page(session, key.tenant_id, jobs.Filter(), before=before, limit=PER_PAGE)
    )
    following = make_cursor(page.next_before)
    here = f"{farm.settings.base_url}{PREFIX}/predictions"
    return JSONResponse(
        {
            "previous": None,
            "next": None if following is None else f"{here}?cursor={following}",
            "results": [_prediction(farm, job) for job in page.jobs],
        }
    )


@router.get(
    "/predictions/{uuid}",
    operation_id="readPrediction",
    responses={200: {"description": "The prediction"}, **errors_as(ReplicateError, 401, 403, 404)},
)
def read_prediction(farm: FarmPart, secret: Secret, uuid: UUID) -> Response:
    """Read a prediction."""
    return JSONResponse(_prediction(farm, _read(farm, secret, uuid)))


@router.post(
    "/predictions/{uuid}/cancel",
    operation_id="cancelPrediction",
    responses={200: {"description": "The prediction"}, **errors_as(ReplicateError, 401, 403, 404)},
)
def cancel_prediction(farm: FarmPart, secret: Secret, uuid: UUID) -> Response:
    """Stop a prediction; one that is over stays as it is."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.RENDER)
        try:
            job = jobs.cancel(session, key.tenant_id, uuid, CANCELED)
        except Conflict:
            job = jobs.read(session, key.tenant_id, uuid)
    farm.notifier.hurry(job.webhook_id)
    return JSONResponse(_prediction(farm, job))


@router.get(
    "/webhooks/default/secret",
    operation_id="readDefaultWebhookSecret",
    responses={200: {"model": DefaultSecret}, **errors_as(ReplicateError, 401, 403)},
)
def read_default_secret(farm: FarmPart, secret: Secret) -> Response:
    """Read what signs the webhooks of the tenant's predictions."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.RENDER)
    return JSONResponse({"key": replicate_secrets(farm.sealer, key.tenant_id)[0]})


async def _create(
    farm: Farm, secret: str, body: bytes, key: str | None, model: str | None, prefer: str, cancel_after: str
) -> Response:
    parsed = cache(partial(parse_json, body))

    def order() -> Order:
        patience = read_period(cancel_after)
        read = read_order(parsed(), model, farm.settings.base_url)
        return replace(read, deadline=None if patience is None else datetime.now(UTC) + patience)

    guard = Guard.of(key, lambda: digest(f"{PREFIX}/{model}", parsed()))
    accepted = await submit(farm, secret, order, guard, size=len(body))
    job, headers = accepted.job, {} if accepted.replayed is None else {REPLAYED: "true"}
    preferred = PREFER.search(prefer)
    if preferred is None:
        return JSONResponse(_prediction(farm, job), CREATED, headers)
    seconds = min(int(preferred[1] or LONGEST_WAIT), LONGEST_WAIT)
    with suppress(FluxfarmError):  # the job is stored: no trouble in waiting may make this call look failed
        job = await until_over(farm.polls, farm.changes, job.tenant_id, job.uuid, seconds - MARGIN)
    headers["Preference-Applied"] = f"wait={seconds}"
    return JSONResponse(still_starting(_prediction(farm, job)), CREATED, headers)


def _read(farm: Farm, secret: str, uuid: UUID) -> Job:
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
        return jobs.read(session, key.tenant_id, uuid)


def _prediction(farm: Farm, job: Job) -> dict[str, Any]:
    return prediction(job, farm.delivery.urls(job), farm.settings.base_url)
