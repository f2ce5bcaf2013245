"""Reference pictures: uploaded once, named by id in any number of jobs."""

from __future__ import annotations

from uuid import UUID

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.auth import Secret, allowed
from api.bodies import FIELD, read_upload
from api.errors import problems
from api.farm import Farm, FarmPart
from api.replies import reply
from fluxfarm.airecord import Moment
from fluxfarm.errors import BadRequest
from fluxfarm.scopes import Scope
from storage.keys import random_id
from storage.objects import reference_key
from storage.pictures import Picture, sanitise
from storage.records import Reference
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
async def upload_reference(farm: FarmPart, secret: Secret, request: Request) -> Response:
    """Upload a reference picture; the same picture again gives the same id."""
    await run_in_threadpool(_owner, farm, secret)  # a stranger's 20 MB are not even read
    body = await read_upload(request, farm.settings.upload_limit)
    picture = await to_thread.run_sync(_redraw, body, limiter=farm.pictures)
    row = await run_in_threadpool(_keep, farm, secret, picture)
    kept = ReferenceReply(
        id=row.id,
        width=row.width,
        height=row.height,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        created_at=row.created_at,
    )
    return reply(kept, 201)


def _owner(farm: Farm, secret: str) -> UUID:
    with farm.database.transaction() as session:
        return allowed(tenants.authenticate(session, secret), Scope.RENDER).tenant_id


def _redraw(body: bytes) -> Picture:
    try:
        return sanitise(body)
    except BadRequest as error:
        error.param = FIELD
        raise


def _keep(farm: Farm, secret: str, picture: Picture) -> Reference:
    with farm.database.transaction() as session:
        owner = allowed(tenants.authenticate(session, secret), Scope.RENDER).tenant_id
        same = references.find_same(session, owner, picture.sha256)
    if same is not None and farm.store.stat(same.object_key) is not None:
        return same
    object_key = reference_key(owner)
    farm.store.put(object_key, picture.png, "image/png")
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.RENDER)
        row = Reference(
            id=random_id("ref_"),
            tenant_id=key.tenant_id,
            object_key=object_key,
            width=picture.width,
            height=picture.height,
            size_bytes=len(picture.png),
            sha256=picture.sha256,
        )
        return references.create(session, row)
