"""OpenAI's files: what batches are made of, and what comes of them. Also below ``/openai``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from api.auth import Secret, allowed, check_caller
from api.batch_replies import FAILED, OUTPUT, told
from api.batch_results import results
from api.batches import PREFIX
from api.creation import Creation, Making
from api.dialects.openai_errors import OpenAIError
from api.errors import errors_as
from api.farm import Farm, FarmPart
from api.forms import FormFile, read_form
from api.replies import reply
from api.strict import PLAIN
from api.uploads import said
from fluxfarm.errors import InvalidField, NotFound
from fluxfarm.scopes import Scope
from storage.batch_records import Batch, BatchFile
from storage.database import Session
from storage.keys import random_id
from storage.repository import batches, tenants

MAX_NAME: Final = 200  #: characters of a file's name that are kept
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


def _file(row: BatchFile) -> FileReply:
    return FileReply(
        id=row.id,
        bytes=row.size_bytes,
        created_at=int(row.created_at.timestamp()),
        filename=row.filename,
        purpose=row.purpose,
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
    with farm.database.statements() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
    rows = farm.replica.read(lambda session: batches.list_files(session, key.tenant_id, after=after, limit=limit + 1))
    shown = [_file(row) for row in rows[:limit]]
    first, last = (shown[0].id, shown[-1].id) if shown else (None, None)
    return reply(FileList(data=shown, first_id=first, last_id=last, has_more=len(rows) > limit))


def _results_of(session: Session, tenant_id: UUID, file_id: str) -> tuple[Batch, bool] | None:
    """The batch whose results the file is, and whether it is the errors."""
    for ending in (OUTPUT, FAILED):
        if file_id.startswith(f"file-{PREFIX}") and file_id.endswith(ending):
            batch = batches.read(session, tenant_id, file_id.removeprefix("file-").removesuffix(ending))
            shown = told(session, batch)
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
