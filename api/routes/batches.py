"""OpenAI's Batch API: `/v1/batches`, with generations and edits. Also below ``/openai``."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal
from uuid import UUID

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Secret, allowed
from api.batch_replies import BatchReply, told, told_all
from api.batches import create
from api.bodies import JsonBody, parse_json
from api.creation import Creation, Making
from api.dialects.openai_errors import OpenAIError
from api.errors import errors_as
from api.farm import Farm, FarmPart
from api.replies import reply
from api.strict import PLAIN, Strict, read
from fluxfarm.airecord import Problem
from fluxfarm.errors import Canceled, Conflict
from fluxfarm.scopes import Scope
from storage.database import Session
from storage.repository import batches, campaigns, tenants

CANCELED: Final = Problem(code=Canceled.code, message="The job's batch was cancelled.", retryable=False)
BatchId = Annotated[str, Path(min_length=1, max_length=64)]

router = APIRouter(prefix="/v1", tags=["OpenAI"])


class NewBatch(Strict):
    """A batch to make."""

    model_config = ConfigDict(extra="ignore")

    input_file_id: str = Field(min_length=1, max_length=64)
    endpoint: Literal["/v1/images/generations", "/v1/images/edits"]
    completion_window: Literal["24h"] = Field(description="A call that has not begun by then ends.")
    metadata: dict[str, str] | None = Field(None, max_length=16)


class BatchList(BaseModel):
    """Batches, the newest first."""

    object: Literal["list"] = "list"
    data: list[BatchReply]
    first_id: str | None
    last_id: str | None
    has_more: bool


_SHOWN: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": BatchReply},
    **errors_as(OpenAIError, 400, 401, 403, 404, 413, 415),
}


@router.post(
    "/batches",
    name="createBatch",
    responses=_SHOWN,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/NewBatch"}}},
        }
    },
)
async def create_batch(farm: FarmPart, secret: Secret, creation: Making, body: JsonBody) -> Response:
    """Make a batch of an uploaded file; its calls are rendered in the bulk lane."""
    return await to_thread.run_sync(_create, farm, secret, creation, body, limiter=farm.pictures)


def _create(farm: Farm, secret: str, creation: Creation, body: bytes) -> Response:
    creation.enter(Scope.RENDER, body)
    asked = read(NewBatch, parse_json(body))
    return create(
        farm,
        secret,
        lambda session, batch: creation.keep(session, reply(told(session, batch))),
        endpoint=asked.endpoint,
        input_file_id=asked.input_file_id,
        window=asked.completion_window,
        notes=asked.metadata or {},
    )


@router.get(
    "/batches", name="listBatches", responses={200: {"model": BatchList}, **errors_as(OpenAIError, 400, 401, 403, 404)}
)
def list_batches(
    farm: FarmPart,
    secret: Secret,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(max_length=64, pattern=PLAIN)] = None,
) -> Response:
    """List the batches, the newest first."""
    with farm.database.statements() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
    shown, has_more = farm.replica.read(lambda session: _listed(session, key.tenant_id, after, limit))
    first, last = (shown[0].id, shown[-1].id) if shown else (None, None)
    return reply(BatchList(data=shown, first_id=first, last_id=last, has_more=has_more))


def _listed(session: Session, tenant_id: UUID, after: str | None, limit: int) -> tuple[list[BatchReply], bool]:
    rows = batches.list_page(session, tenant_id, after=after, limit=limit + 1)
    return told_all(session, tenant_id, rows[:limit]), len(rows) > limit


@router.get("/batches/{batch_id}", name="readBatch", responses=_SHOWN)
def read_batch(farm: FarmPart, secret: Secret, batch_id: BatchId) -> Response:
    """Read a batch: how far it is, and where its results are."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
        return reply(told(session, batches.read(session, key.tenant_id, batch_id)))


@router.post("/batches/{batch_id}/cancel", name="cancelBatch", responses={**_SHOWN, **errors_as(OpenAIError, 409)})
def cancel_batch(farm: FarmPart, secret: Secret, batch_id: BatchId) -> Response:
    """End a batch: calls in flight finish, all others are cancelled. One that is over keeps its end (409)."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.RENDER)
        found = batches.read(session, key.tenant_id, batch_id)
        ended = campaigns.cancel_waiting(session, key.tenant_id, found.id, CANCELED)
        shown = told(session, found)
        if not ended and found.cancelled_at is None and shown.status != "in_progress":
            raise Conflict(f"The batch is over: {shown.status}.", param="batch_id")
        batches.note_cancel(session, found)
        return reply(told(session, found))
