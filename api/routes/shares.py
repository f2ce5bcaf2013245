"""Links that show a campaign's files to people without a key; they expire, and can be revoked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Path, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.auth import Secret, allowed
from api.bodies import JsonBody, parse_json
from api.creation import Making
from api.errors import problems
from api.export import chosen, gather
from api.farm import Farm, FarmPart
from api.replies import reply
from api.routes.campaign_exports import attachment
from api.routes.campaigns import Name
from api.strict import Strict, future, read
from fluxfarm.airecord import Moment
from fluxfarm.campaigns.review_record import Choice, Share
from fluxfarm.errors import InvalidField, NotFound
from fluxfarm.scopes import Scope
from storage.campaign_records import Campaign, ShareLink
from storage.database import Session
from storage.repository import campaigns, shares, tenants

router = APIRouter(tags=["shares"])

Token = Annotated[str, Path(min_length=1, max_length=64)]


class NewShare(Strict):
    """A link to make."""

    expires_at: str = Field(
        alias="expiresAt",
        max_length=40,
        description="RFC 3339 with a zone, in the future.",
        json_schema_extra={"format": "date-time"},
    )
    only: Annotated[Choice, Field(strict=False, description="Which files, as for the export.")] = Choice.AUTO


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class ShareList(_Part):
    """Every link of a campaign, the newest first."""

    data: list[Share]


class SharedFile(_Part):
    """A picture that the link shows."""

    name: str
    width: int | None
    height: int | None
    url: str


class Shared(_Part):
    """What the link shows."""

    campaign: str
    expires_at: Moment
    archive: str = Field(description="All files as a ZIP.")
    files: list[SharedFile]


def _told(row: ShareLink, url: str | None = None) -> Share:
    return Share(
        id=row.id,
        only=Choice(row.only),
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        opened=row.opened,
        created_at=row.created_at,
        url=url,
    )


@router.post(
    "/v1/campaigns/{name}/shares",
    operation_id="createShare",
    status_code=201,
    responses={201: {"model": Share}, **problems(400, 401, 403, 404, 413, 415)},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/NewShare"}}},
        }
    },
)
def create_share(farm: FarmPart, creation: Making, name: Name, body: JsonBody) -> Response:
    """Make a link that shows the files to whoever has it."""
    with farm.database.transaction() as session:
        key = creation.begin(session, Scope.CAMPAIGNS, body)
        made = make(session, farm, campaigns.read(session, key.tenant_id, name), read(NewShare, parse_json(body)))
        return creation.keep(session, reply(made, 201))


def make(session: Session, farm: Farm, campaign: Campaign, asked: NewShare) -> Share:
    """Make a link to a campaign's files; its address is told this once.

    Raises:
        InvalidField: it would be over before it begins.
    """
    until = future(asked.expires_at, "expiresAt", datetime.now(UTC))
    if until is None:
        raise InvalidField("expiresAt is missing.", param="expiresAt")
    row, token = shares.create(session, campaign.id, asked.only.value, until)
    return _told(row, _url(farm, token))


@router.get(
    "/v1/campaigns/{name}/shares",
    operation_id="listShares",
    responses={200: {"model": ShareList}, **problems(401, 403, 404)},
)
def list_shares(farm: FarmPart, secret: Secret, name: Name) -> Response:
    """List the links of a campaign."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
        return reply(ShareList(data=links(session, campaigns.read(session, key.tenant_id, name))))


def links(session: Session, campaign: Campaign) -> list[Share]:
    """Every link to a campaign's files, the newest first."""
    return [_told(row) for row in shares.list_all(session, campaign.id)]


@router.delete(
    "/v1/campaigns/{name}/shares/{id}",
    operation_id="revokeShare",
    status_code=204,
    responses=problems(401, 403, 404),
)
def revoke_share(farm: FarmPart, secret: Secret, name: Name, id: UUID) -> Response:  # noqa: A002
    """Close a link at once."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.CAMPAIGNS)
        shares.revoke(session, campaigns.read(session, key.tenant_id, name).id, id)
    return Response(status_code=204)


def _url(farm: Farm, token: str) -> str:
    return f"{farm.settings.base_url}/shares/{token}"


_OPEN: Final[dict[int | str, dict[str, Any]]] = problems(403, 404)


def _opened(session: Session, token: str) -> tuple[ShareLink, Campaign]:
    return shares.open_link(session, token)


@router.get("/shares/{token}", operation_id="openShare", responses={200: {"model": Shared}, **_OPEN})
def open_share(farm: FarmPart, token: Token) -> Response:
    """See what a link shows; it needs no key."""
    with farm.database.transaction() as session:
        row, campaign = _opened(session, token)
    here = _url(farm, token)
    files = [
        SharedFile(name=one.name, width=one.width, height=one.height, url=f"{here}/files/{one.n}")
        for one in chosen(farm, campaign, Choice(row.only))
    ]
    shown = Shared(campaign=campaign.name, expires_at=row.expires_at, archive=f"{here}/export.zip", files=files)
    return reply(shown)


@router.get(
    "/shares/{token}/files/{n}",
    operation_id="openSharedFile",
    status_code=302,
    responses={302: {"description": "A temporary link to the picture"}, **_OPEN},
)
def open_shared_file(farm: FarmPart, token: Token, n: Annotated[int, Path(ge=0, le=2**31 - 1)]) -> Response:
    """Go to a picture that a link shows."""
    with farm.database.transaction() as session:
        row, campaign = _opened(session, token)
    one = next((one for one in chosen(farm, campaign, Choice(row.only), number=n)), None)
    if one is None or one.object_key is None:
        raise NotFound("The link shows no such file.")
    where = farm.store.presign(
        one.object_key,
        ttl=farm.settings.link_ttl,
        content_type=one.content_type or "",
        filename=one.name.rpartition("/")[2],
        inline=True,
    )
    return Response(status_code=302, headers={"Location": where})


@router.get(
    "/shares/{token}/export.zip",
    operation_id="exportShare",
    responses={200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}, **_OPEN},
    response_class=Response,
)
def export_share(farm: FarmPart, token: Token) -> StreamingResponse:
    """Download what a link shows."""
    with farm.database.transaction() as session:
        row, campaign = _opened(session, token)
    size, pieces = gather(farm, campaign, Choice(row.only)).archive(campaign)
    headers = attachment(f"{campaign.name}.zip") | {"Content-Length": str(size)}
    return StreamingResponse(pieces, media_type="application/zip", headers=headers)
