"""The wall of all pictures; the browser lays it out, and holds only what is near the screen."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.airecords import make_cursor, read_cursor
from api.dashboard import pages
from api.dashboard.jobs import Wanted
from api.dashboard.visitors import Looking, Visitor, VisitorPart
from api.replies import reply
from fluxfarm.catalog import MODELS
from storage.repository import gallery
from storage.repository.gallery import Shown

FIRST: Final = 60  #: jobs on the page itself, which is all that there is without a script
MORE: Final = 1_000  #: jobs of one call of the script
PROMPT: Final = 120  #: characters

router = APIRouter(prefix="/gallery")


class PictureReply(BaseModel):
    """A picture for the wall."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    id: str = Field(description="The job and the number of the picture.")
    w: int
    h: int
    p: str


class Wall(BaseModel):
    """Some pictures, the newest first."""

    data: list[PictureReply]
    next: str | None


@router.get("")
def show(request: Request, visitor: VisitorPart, wanted: Annotated[Wanted, Query()]) -> Response:
    """The newest, and where the others are."""
    looking, found, following = _page(visitor, wanted, FIRST)
    return pages.page(
        request,
        "gallery.html",
        looking,
        pictures=found,
        wanted=wanted,
        following=None if following is None else wanted.link(cursor=following),
        models=MODELS,
    )


@router.get("/pictures")
def more(visitor: VisitorPart, wanted: Annotated[Wanted, Query()]) -> Response:
    """A thousand jobs' pictures: sizes and names, for the layout."""
    _, found, following = _page(visitor, wanted, MORE)
    data = [PictureReply(id=f"{one.uuid}/{one.n}", w=one.width, h=one.height, p=one.prompt[:PROMPT]) for one in found]
    return reply(Wall(data=data, next=following))


def _page(visitor: Visitor, wanted: Wanted, limit: int) -> tuple[Looking, list[Shown], str | None]:
    before = read_cursor(wanted.cursor)
    with visitor.looking() as looking:
        tenant_id = looking.caller.tenant_id
    found, following = visitor.read(
        lambda session: gallery.page(session, tenant_id, wanted.filter(), before=before, limit=limit)
    )
    return looking, found, make_cursor(following)
