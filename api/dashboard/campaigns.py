"""Campaigns: listed, steered, delivered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Form, Request, Response

from api.auth import allowed
from api.campaign_replies import campaign_record
from api.dashboard import pages
from api.dashboard.visitors import Looking, VisitorPart
from api.review import make_masters
from api.routes import campaigns as native
from api.routes import shares
from fluxfarm.campaigns.review_record import Choice
from fluxfarm.errors import NotFound
from fluxfarm.scopes import Scope
from storage.campaign_records import Campaign
from storage.repository import campaigns

SHOWN: Final = 20  #: campaigns of a page; each is counted
STEPS: Final = {"pause": native.pause_campaign, "resume": native.resume_campaign, "cancel": native.cancel_campaign}

router = APIRouter()


@router.get("/campaigns")
def list_campaigns(request: Request, visitor: VisitorPart, before: str | None = None) -> Response:
    """The newest first; ``before`` is the last one's moment on the page before."""
    moment = native.read_moment(before)
    with visitor.looking() as looking:
        tenant_id = looking.caller.tenant_id
    records, following = visitor.read(lambda session: native.listed(session, tenant_id, moment, SHOWN))
    return pages.page(
        request, "campaigns.html", looking, campaigns=records, is_first=moment is None, following=following
    )


@router.post("/campaigns/{name}/steer/{step}")
def steer(request: Request, visitor: VisitorPart, name: str, step: str) -> Response:
    """Pause, resume, cancel, or try again what failed."""
    if step == "retry":
        native.retry_campaign(visitor.farm, visitor.secret, visitor.creation(request), name)
    elif step in STEPS:
        STEPS[step](visitor.farm, visitor.secret, name)
    else:
        raise NotFound("There is no such step.")
    return pages.go(f"/campaigns/{name}")


@router.post("/campaigns/{name}/masters")
def masters(visitor: VisitorPart, name: str) -> Response:
    """Render every approved draft in full."""
    make_masters(visitor.farm, visitor.secret, name, [], [])
    return pages.go(f"/campaigns/{name}?part=masters")


@router.get("/campaigns/{name}/deliver")
def deliver(request: Request, visitor: VisitorPart, name: str) -> Response:
    """What can be taken away, and who was sent a link."""
    with visitor.looking() as looking:
        found = campaigns.read(looking.session, looking.caller.tenant_id, name)
        return _delivery(request, looking, found, None)


@router.post("/campaigns/{name}/shares")
def share(
    request: Request,
    visitor: VisitorPart,
    name: str,
    days: Annotated[int, Form(ge=1, le=365)] = 14,
    only: Annotated[Choice, Form()] = Choice.AUTO,
) -> Response:
    """Make a link; its address is shown this once."""
    until = (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds")
    with visitor.looking() as looking:
        caller = allowed(looking.caller, Scope.CAMPAIGNS)
        found = campaigns.read(looking.session, caller.tenant_id, name)
        made = shares.make(looking.session, visitor.farm, found, shares.NewShare(expiresAt=until, only=only))
        return _delivery(request, looking, found, made.url)


def _delivery(request: Request, looking: Looking, campaign: Campaign, fresh: str | None) -> Response:
    return pages.page(
        request,
        "campaign_deliver.html",
        looking,
        at=f"/campaigns/{campaign.name}/deliver",
        campaign=campaign_record(looking.session, campaign),
        links=shares.links(looking.session, campaign),
        fresh=fresh,
        choices=tuple(Choice),
        now=datetime.now(UTC),
    )


@router.post("/campaigns/{name}/shares/{uuid}/revoke")
def revoke(visitor: VisitorPart, name: str, uuid: UUID) -> Response:
    """Close a link at once."""
    shares.revoke_share(visitor.farm, visitor.secret, name, uuid)
    return pages.go(f"/campaigns/{name}/deliver")
