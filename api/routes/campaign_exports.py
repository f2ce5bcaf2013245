"""What a campaign delivers: a ZIP that is written as it is sent, and its manifest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from api.auth import Secret, allowed
from api.errors import problems
from api.export import gather
from api.farm import Farm, FarmPart
from api.routes.campaigns import Name
from fluxfarm.campaigns import manifest
from fluxfarm.campaigns.review_record import Choice
from fluxfarm.errors import InvalidField
from fluxfarm.scopes import Scope
from storage import contact_sheet
from storage.campaign_records import Campaign
from storage.contact_sheet import Thumb
from storage.links import content_disposition
from storage.repository import campaigns, tenants

router = APIRouter(prefix="/v1/campaigns", tags=["campaigns"])

Only = Annotated[
    Choice,
    Query(description="`auto`: the approved files if the campaign says `review`, else all that are done."),
]


BINARY: Final = {"type": "string", "format": "binary"}


def _content(kind: str, schema: dict[str, str] = BINARY) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {kind: {"schema": schema}}}, **problems(400, 401, 403, 404)}


def _found(farm: Farm, secret: str, name: str) -> Campaign:
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
        return campaigns.read(session, key.tenant_id, name)


def attachment(name: str) -> dict[str, str]:
    """The header that saves the reply under a name."""
    return {"Content-Disposition": content_disposition(name, inline=False)}


@router.get(
    "/{name}/export.zip", operation_id="exportCampaign", responses=_content("application/zip"), response_class=Response
)
def export_campaign(farm: FarmPart, secret: Secret, name: Name, only: Only = Choice.AUTO) -> StreamingResponse:
    """Download the files under their names, with `manifest.csv` and `manifest.json`.

    The archive is written as it is sent; its length is told, so that a broken download can be seen.
    """
    campaign = _found(farm, secret, name)
    size, pieces = gather(farm, campaign, only).archive(campaign)
    headers = attachment(f"{campaign.name}.zip") | {"Content-Length": str(size), "X-Accel-Buffering": "no"}
    body: Iterator[bytes] = pieces
    return StreamingResponse(body, media_type="application/zip", headers=headers)


@router.get(
    "/{name}/manifest.csv", operation_id="campaignManifestCsv", responses=_content("text/csv"), response_class=Response
)
def manifest_csv(farm: FarmPart, secret: Secret, name: Name, only: Only = Choice.AUTO) -> Response:
    """List the files for a spreadsheet; what could be a formula is made a text."""
    campaign = _found(farm, secret, name)
    body = manifest.as_csv(gather(farm, campaign, only).lines)
    return Response(body, headers=attachment(f"{campaign.name}.csv"), media_type="text/csv; charset=utf-8")


@router.get(
    "/{name}/manifest.json",
    operation_id="campaignManifestJson",
    responses=_content("application/json", {"type": "object"}),
    response_class=Response,
)
def manifest_json(farm: FarmPart, secret: Secret, name: Name, only: Only = Choice.AUTO) -> Response:
    """List the files for a program."""
    campaign = _found(farm, secret, name)
    body = manifest.as_json(campaign.name, gather(farm, campaign, only).lines)
    return Response(body, headers=attachment(f"{campaign.name}.json"), media_type="application/json")


MOST_THUMBS: Final = 600  #: pictures of one PDF


def _thumbs(farm: Farm, secret: str, name: str, only: Choice) -> tuple[Campaign, list[Thumb]]:
    campaign = _found(farm, secret, name)
    entries = gather(farm, campaign, only).entries
    if not entries:
        raise InvalidField("There is no such picture yet; name other files with only.", param="only")
    return campaign, [Thumb(entry.name, entry.read) for entry in entries]


@router.get(
    "/{name}/contact-sheet.png",
    operation_id="contactSheetPng",
    responses=_content("image/png"),
    response_class=Response,
)
def contact_sheet_png(
    farm: FarmPart, secret: Secret, name: Name, only: Only = Choice.AUTO, page: Annotated[int, Query(ge=1)] = 1
) -> Response:
    """See the pictures small with their names, thirty on a page; `Link` leads to the next page."""
    _, thumbs = _thumbs(farm, secret, name, only)
    pages = contact_sheet.page_count(len(thumbs))
    if page > pages:
        raise InvalidField(f"There are {pages} pages.", param="page")
    body = contact_sheet.as_png(thumbs[(page - 1) * contact_sheet.PAGE : page * contact_sheet.PAGE])
    following = f"{farm.settings.base_url}/v1/campaigns/{name}/contact-sheet.png?only={only}&page={page + 1}"
    headers = {"Link": f'<{following}>; rel="next"'} if page < pages else {}
    return Response(body, headers=headers, media_type="image/png")


@router.get(
    "/{name}/contact-sheet.pdf",
    operation_id="contactSheetPdf",
    responses=_content("application/pdf"),
    response_class=Response,
)
def contact_sheet_pdf(farm: FarmPart, secret: Secret, name: Name, only: Only = Choice.AUTO) -> Response:
    """Print the pictures small with their names, all pages in one PDF."""
    campaign, thumbs = _thumbs(farm, secret, name, only)
    if len(thumbs) > MOST_THUMBS:
        raise InvalidField(f"{len(thumbs):,} pictures; a PDF takes {MOST_THUMBS}. Take the PNG pages.", param="only")
    body = contact_sheet.as_pdf(thumbs, campaign.name)
    return Response(body, headers=attachment(f"{campaign.name}.pdf"), media_type="application/pdf")
