"""Replicate's files: its clients upload pictures first and name them by URL in the input."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from api.auth import Secret, allowed, check_caller
from api.creation import Making
from api.dialects.replicate import file_url
from api.dialects.replicate_errors import ReplicateError
from api.errors import errors_as
from api.farm import FarmPart
from api.forms import read_form
from api.replies import reply
from api.uploads import keep, said
from fluxfarm.airecord import Moment
from fluxfarm.errors import InvalidField, NotFound
from fluxfarm.scopes import Scope
from storage.records import Reference
from storage.repository import references, tenants

CONTENT: Final = "content"
METADATA: Final = "metadata"  #: a file part to some clients, a field to others; not kept
_FORM: Final = {
    "type": "object",
    "required": [CONTENT],
    "properties": {
        CONTENT: {"type": "string", "format": "binary", "description": "A PNG, JPEG or WebP."},
        METADATA: {"type": "string", "description": "Not kept."},
    },
}

router = APIRouter(prefix="/replicate/v1/files", tags=["Replicate"])


class FileReply(BaseModel):
    """An uploaded picture, as the farm keeps it: redrawn as PNG."""

    id: str
    name: str
    content_type: str = "image/png"
    size: int
    etag: str
    checksums: dict[str, str]
    metadata: dict[str, Any] = {}
    created_at: Moment
    expires_at: datetime | None = None
    urls: dict[str, str]


@router.post(
    "",
    operation_id="createFile",
    status_code=201,
    responses={201: {"model": FileReply}, **errors_as(ReplicateError, 400, 401, 403, 413, 415, 422)},
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
)
async def create_file(farm: FarmPart, secret: Secret, creation: Making, request: Request) -> Response:
    """Upload a picture; `urls.get` is what the input of a prediction takes."""
    await check_caller(farm, secret)
    form = await read_form(request, farm.settings.upload_limit)
    contents = [file.body for file in form.files if file.name != METADATA]
    if len(contents) != 1:
        raise InvalidField(f"The form must hold one file, in the field {CONTENT!r}.", param=CONTENT)
    await run_in_threadpool(creation.enter, Scope.RENDER, said({}, [(CONTENT, contents[0])]))
    row = await keep(farm, secret, contents[0], CONTENT)
    return await run_in_threadpool(creation.close, reply(_file(row, farm.settings.base_url), 201))


@router.get(
    "/{file}",
    operation_id="readFile",
    responses={200: {"model": FileReply}, **errors_as(ReplicateError, 401, 403, 404)},
)
def read_file(farm: FarmPart, secret: Secret, file: str) -> Response:
    """Read what an uploaded picture is; its bytes are not given out again."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
        found = references.find(session, key.tenant_id, [file]).get(file)
    if found is None:
        raise NotFound(f"There is no file {file[:60]}.")
    return JSONResponse(_file(found, farm.settings.base_url).model_dump(mode="json"))


def _file(row: Reference, base_url: str) -> FileReply:
    return FileReply(
        id=row.id,
        name=f"{row.id}.png",
        size=row.size_bytes,
        etag=row.sha256,
        checksums={"sha256": row.sha256},
        created_at=row.created_at,
        urls={"get": file_url(base_url, row.id)},
    )
