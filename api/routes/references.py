"""Reference pictures: uploaded once, named by id in any number of jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.auth import Secret, allowed, check_caller
from api.bodies import FIELD, read_upload
from api.creation import Making
from api.errors import problems
from api.farm import FarmPart
from api.replies import reply
from api.uploads import keep, said
from fluxfarm.airecord import Moment
from fluxfarm.scopes import Scope
from storage.repository import references, tenants

router = APIRouter(prefix="/v1/references", tags=["references"])


class ReferenceReply(BaseModel):
    """An uploaded picture, as the farm keeps it: redrawn as PNG without metadata, at most 4 megapixels."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    id: str = Field(description="Name it in `promptObject.images`.")
    width: int
    height: int
    size_bytes: int = Field(alias="bytes")
    sha256: str
    created_at: Moment


_FORM = {
    "type": "object",
    "required": [FIELD],
    "additionalProperties": False,
    "properties": {FIELD: {"type": "string", "format": "binary", "description": "A PNG, JPEG or WebP."}},
}


@router.post(
    "",
    operation_id="uploadReference",
    status_code=201,
    responses={201: {"model": ReferenceReply}, **problems(400, 401, 403, 413, 415)},
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
)
async def upload_reference(farm: FarmPart, secret: Secret, creation: Making, request: Request) -> Response:
    """Upload a reference picture; the same picture again gives the same id."""
    await check_caller(farm, secret)
    body = await read_upload(request, farm.settings.upload_limit)
    await run_in_threadpool(creation.enter, Scope.RENDER, said({}, [(FIELD, body)]))
    row = await keep(farm, secret, body, FIELD)
    kept = ReferenceReply(
        id=row.id,
        width=row.width,
        height=row.height,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        created_at=row.created_at,
    )
    return await run_in_threadpool(creation.close, reply(kept, 201))


@router.delete("/{reference}", operation_id="eraseReference", status_code=204, responses=problems(401, 403, 404))
def erase_reference(farm: FarmPart, secret: Secret, reference: Annotated[str, Path(max_length=64)]) -> Response:
    """Forget an uploaded picture.

    No new job can name it. Its file is deleted within minutes, or when nothing needs it any more: no open job, and no
    campaign.
    """
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.RENDER)
        references.erase(session, key.tenant_id, reference)
    return Response(status_code=204)
