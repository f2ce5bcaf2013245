"""The pictures of jobs for the pages: whole ones by a fresh link, small ones made once and kept beside them."""

from __future__ import annotations

from typing import Annotated, Final
from uuid import UUID

from anyio import to_thread
from fastapi import APIRouter, Path, Response
from fastapi.responses import RedirectResponse

from api.auth import allowed
from api.dashboard.visitors import Visitor, VisitorPart
from fluxfarm.errors import NotFound
from fluxfarm.scopes import Scope
from storage.objects_local import LocalStore
from storage.records import Image
from storage.repository import images, tenants
from storage.thumbnails import CONTENT_TYPE, read_or_make

KEPT: Final = {"Cache-Control": "private, max-age=86400"}  #: a picture of a finished job never changes

router = APIRouter()

Number = Annotated[int, Path(ge=0, le=1000)]


@router.get("/pictures/{uuid}/{n}")
def picture(visitor: VisitorPart, uuid: UUID, n: Number, download: bool = False) -> Response:
    """Go to a picture."""
    farm, image = visitor.farm, _image(visitor, uuid, n)
    extension = image.object_key.rpartition(".")[2]
    link = farm.store.presign(
        image.object_key,
        ttl=farm.settings.link_ttl,
        content_type=image.content_type,
        filename=f"{str(uuid)[:8]}-{n}.{extension}",
        inline=not download,
    )
    if isinstance(farm.store, LocalStore):
        link = link.removeprefix(farm.settings.base_url)  # under whatever name the visitor knows the farm
    return RedirectResponse(link, 302)


@router.get("/thumbnails/{uuid}/{n}")
async def thumbnail(visitor: VisitorPart, uuid: UUID, n: Number) -> Response:
    """A small WebP of a picture."""
    body = await to_thread.run_sync(_small, visitor, uuid, n, limiter=visitor.farm.pictures)
    return Response(body, headers=KEPT, media_type=CONTENT_TYPE)


def _small(visitor: Visitor, uuid: UUID, n: int) -> bytes:
    return read_or_make(visitor.farm.store, _image(visitor, uuid, n).object_key)


def _image(visitor: Visitor, uuid: UUID, n: int) -> Image:
    with visitor.farm.database.transaction() as session:
        caller = allowed(tenants.authenticate(session, visitor.secret), Scope.READ)
        found = images.read(session, caller.tenant_id, uuid, n)
    if found is None:
        raise NotFound(f"Job {uuid} has no picture {n}.")
    return found
