"""OpenAI's Batch API: `/v1/files` and `/v1/batches`, with generations and edits. Also below ``/openai``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Secret, allowed, check_caller
from api.batch_results import results
from api.batches import PREFIX, create
from api.bodies import JsonBody, parse_json
from api.creation import Creation, Making
from api.dialects.openai_errors import OpenAIError
from api.errors import errors_as
from api.farm import Farm, FarmPart
from api.forms import FormFile, read_form
from api.replies import reply
from api.strict import PLAIN, Strict, read
from api.uploads import said
from fluxfarm.airecord import Problem
from fluxfarm.errors import Canceled, Conflict, InvalidField, NotFound
from fluxfarm.scopes import Scope
from storage.batch_records import Batch, BatchFile
from storage.database import Session
from storage.keys import random_id
from storage.repository import batches, campaigns, tenants
from storage.repository.batches import Tally

OUTPUT, FAILED = "-output", "-errors"
MAX_NAME: Final = 200  #: characters of a file's name that are kept
CANCELED: Final = Problem(code=Canceled.code, message="The job's batch was cancelled.", retryable=False)
BatchId = Annotated[str, Path(min_length=1, max_length=64)]
FileId = Annotated[str, Path(min_length=1, max_length=80)]

router = APIRouter(prefix="/v1", tags=["OpenAI"])


class FileReply(BaseModel):
    """A file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"


class FileList(BaseModel):
    """Files, the newest first."""

    object: Literal["list"] = "list"
    data: list[FileReply]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(BaseModel):
    """A file that is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class NewBatch(Strict):
    """A batch to make."""

    model_config = ConfigDict(extra="ignore")

    input_file_id: str = Field(min_length=1, max_length=64)
    endpoint: Literal["/v1/images/generations", "/v1/images/edits"]
    completion_window: Literal["24h"] = Field(description="A call that has not begun by then ends.")
    metadata: dict[str, str] | None = Field(None, max_length=16)


class RequestCounts(BaseModel):
    """How far it is."""

    total: int
    completed: int
    failed: int


class Mistake(BaseModel):
    """What is wrong with a line of the file."""

    code: str
    message: str
    param: str | None
    line: int | None


class Mistakes(BaseModel):
    """Why the file was refused."""

    object: Literal["list"] = "list"
    data: list[Mistake]


class BatchReply(BaseModel):
    """A batch as it stands now."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: Mistakes | None
    input_file_id: str
    completion_window: str
    status: Literal["failed", "in_progress", "completed", "expired", "cancelling", "cancelled"]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None


class BatchList(BaseModel):
    """Batches, the newest first."""

    object: Literal["list"] = "list"
    data: list[BatchReply]
    first_id: str | None
    last_id: str | None
    has_more: bool


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())


def _file(row: BatchFile) -> FileReply:
    return FileReply(
        id=row.id,
        bytes=row.size_bytes,
        created_at=int(row.created_at.timestamp()),
        filename=row.filename,
        purpose=row.purpose,
    )


def _batch(session: Session, row: Batch) -> BatchReply:
    return _batches(session, row.tenant_id, [row])[0]


def _batches(session: Session, tenant_id: UUID, rows: Sequence[Batch]) -> list[BatchReply]:
    tallies = batches.tallies(session, tenant_id, [row.id for row in rows])
    return [_told(row, tallies[row.id]) for row in rows]


def _told(row: Batch, tally: Tally) -> BatchReply:
    status, ended = "in_progress", tally.finished_at or row.created_at
    if row.errors is not None:
        status = "failed"
    elif row.cancelled_at is not None:
        status = "cancelled" if tally.is_over else "cancelling"
    elif tally.is_over:
        status = "expired" if tally.late else "completed"
    over = status in ("completed", "expired", "cancelled")
    return BatchReply(
        id=row.id,
        endpoint=row.endpoint,
        errors=None if row.errors is None else Mistakes(data=[Mistake(**one) for one in row.errors]),
        input_file_id=row.input_file_id,
        completion_window=row.completion_window,
        status=status,
        output_file_id=f"file-{row.id}{OUTPUT}" if over and tally.completed else None,
        error_file_id=f"file-{row.id}{FAILED}" if over and tally.failed else None,
        created_at=int(row.created_at.timestamp()),
        in_progress_at=_seconds(tally.started_at),
        expires_at=int(row.expires_at.timestamp()),
        completed_at=_seconds(ended) if status == "completed" else None,
        failed_at=_seconds(row.created_at) if status == "failed" else None,
        expired_at=_seconds(row.expires_at) if status == "expired" else None,
        cancelling_at=_seconds(row.cancelled_at),
        cancelled_at=_seconds(ended) if status == "cancelled" else None,
        request_counts=RequestCounts(total=tally.total, completed=tally.completed, failed=tally.failed),
        metadata=row.notes or None,
    )


_FORM: Final = {
    "type": "object",
    "required": ["purpose", "file"],
    "properties": {"purpose": {"type": "string", "enum": ["batch"]}, "file": {"type": "string", "format": "binary"}},
}


@router.post(
    "/files",
    name="uploadBatchFile",
    responses={200: {"model": FileReply}, **errors_as(OpenAIError, 400, 401, 403, 413, 415)},
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
)
async def upload_file(farm: FarmPart, secret: Secret, creation: Making, request: Request) -> Response:
    """Upload a JSON Lines file for a batch, with the purpose `batch`."""
    await check_caller(farm, secret)
    form = await read_form(request, farm.settings.campaign_limit)
    if form.fields.get("purpose") != "batch":
        raise InvalidField("purpose must be 'batch'.", param="purpose")
    file = next((one for one in form.files if one.name == "file"), None)
    if file is None:
        raise InvalidField("The form has no file in the field 'file'.", param="file")
    return await run_in_threadpool(_keep, farm, creation, file)


def _keep(farm: Farm, creation: Creation, file: FormFile) -> Response:
    name = "".join(filter(str.isprintable, file.filename))[:MAX_NAME] or "batch.jsonl"
    with farm.database.transaction() as session:
        key = creation.begin(session, Scope.RENDER, said({"filename": name}, [("file", file.body)]))
        row = BatchFile(
            id=random_id("file-"),
            tenant_id=key.tenant_id,
            filename=name,
            purpose="batch",
            body=file.body,
            size_bytes=len(file.body),
        )
        return creation.keep(session, reply(_file(batches.keep_file(session, row))))


@router.get(
    "/files", name="listBatchFiles", responses={200: {"model": FileList}, **errors_as(OpenAIError, 400, 401, 403, 404)}
)
def list_files(
    farm: FarmPart,
    secret: Secret,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(max_length=80, pattern=PLAIN)] = None,
) -> Response:
    """List the uploaded files, the newest first."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
        rows = batches.list_files(session, key.tenant_id, after=after, limit=limit + 1)
    shown = [_file(row) for row in rows[:limit]]
    first, last = (shown[0].id, shown[-1].id) if shown else (None, None)
    return reply(FileList(data=shown, first_id=first, last_id=last, has_more=len(rows) > limit))


def _results_of(session: Session, tenant_id: UUID, file_id: str) -> tuple[Batch, bool] | None:
    """The batch whose results the file is, and whether it is the errors."""
    for ending in (OUTPUT, FAILED):
        if file_id.startswith(f"file-{PREFIX}") and file_id.endswith(ending):
            batch = batches.read(session, tenant_id, file_id.removeprefix("file-").removesuffix(ending))
            shown = _batch(session, batch)
            if file_id not in (shown.output_file_id, shown.error_file_id):
                raise NotFound("The batch has no such file, or not yet.", param="file_id")
            return batch, ending == FAILED
    return None


@router.get(
    "/files/{file_id}",
    name="readBatchFile",
    responses={200: {"model": FileReply}, **errors_as(OpenAIError, 401, 403, 404)},
)
def read_file(farm: FarmPart, secret: Secret, file_id: FileId) -> Response:
    """Read what is known of a file."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
        found = _results_of(session, key.tenant_id, file_id)
        if found is None:
            return reply(_file(batches.read_file(session, key.tenant_id, file_id)))
    batch, failed = found
    size = sum(map(len, results(farm, batch, failed=failed)))
    name = f"{batch.id}{FAILED if failed else OUTPUT}.jsonl"
    made = int(batch.created_at.timestamp())
    return reply(FileReply(id=file_id, bytes=size, created_at=made, filename=name, purpose="batch_output"))


@router.get(
    "/files/{file_id}/content",
    name="readBatchFileContent",
    responses={
        200: {"content": {"application/jsonl": {"schema": {"type": "string", "format": "binary"}}}},
        **errors_as(OpenAIError, 401, 403, 404),
    },
    response_class=Response,
)
def read_content(farm: FarmPart, secret: Secret, file_id: FileId) -> Response:
    """Download a file; the results of a batch are written while they are sent, their links are fresh."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
        found = _results_of(session, key.tenant_id, file_id)
        if found is None:
            body = batches.read_file(session, key.tenant_id, file_id, with_body=True).body
            return Response(body, media_type="application/jsonl")
    batch, failed = found
    pieces: Iterator[bytes] = results(farm, batch, failed=failed)
    return StreamingResponse(pieces, media_type="application/jsonl")


@router.delete(
    "/files/{file_id}",
    name="deleteBatchFile",
    responses={200: {"model": Deleted}, **errors_as(OpenAIError, 401, 403, 404)},
)
def delete_file(farm: FarmPart, secret: Secret, file_id: FileId) -> Response:
    """Forget an uploaded file; batches that were made of it go on."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.RENDER)
        batches.erase_file(session, key.tenant_id, file_id)
    return reply(Deleted(id=file_id))


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
        lambda session, batch: creation.keep(session, reply(_batch(session, batch))),
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
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
        rows = batches.list_page(session, key.tenant_id, after=after, limit=limit + 1)
        shown = _batches(session, key.tenant_id, rows[:limit])
    first, last = (shown[0].id, shown[-1].id) if shown else (None, None)
    return reply(BatchList(data=shown, first_id=first, last_id=last, has_more=len(rows) > limit))


@router.get("/batches/{batch_id}", name="readBatch", responses=_SHOWN)
def read_batch(farm: FarmPart, secret: Secret, batch_id: BatchId) -> Response:
    """Read a batch: how far it is, and where its results are."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
        return reply(_batch(session, batches.read(session, key.tenant_id, batch_id)))


@router.post("/batches/{batch_id}/cancel", name="cancelBatch", responses={**_SHOWN, **errors_as(OpenAIError, 409)})
def cancel_batch(farm: FarmPart, secret: Secret, batch_id: BatchId) -> Response:
    """End a batch: calls in flight finish, all others are cancelled. One that is over keeps its end (409)."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.RENDER)
        found = batches.read(session, key.tenant_id, batch_id)
        ended = campaigns.cancel_waiting(session, key.tenant_id, found.id, CANCELED)
        shown = _batch(session, found)
        if not ended and found.cancelled_at is None and shown.status != "in_progress":
            raise Conflict(f"The batch is over: {shown.status}.", param="batch_id")
        batches.note_cancel(session, found)
        return reply(_batch(session, found))
