"""Campaigns: planned, made, looked at, steered."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

from anyio import to_thread
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Secret, allowed, check_caller
from api.bodies import JsonBody, capped, media_type, parse_json
from api.campaign_replies import (
    AssetPage,
    CampaignPage,
    CampaignReply,
    PlanReply,
    asset_record,
    campaign_record,
    plan_of,
)
from api.campaigns import create, prepare
from api.creation import Creation, Making
from api.errors import problems
from api.farm import Farm, FarmPart
from api.replies import reply
from api.retry import retry_many
from api.strict import Strict, read
from api.submit import dispatch
from fluxfarm.campaigns.record import CAMPAIGN_CANCELED, CampaignRecord
from fluxfarm.campaigns.source import check, read_source
from fluxfarm.campaigns.spec import Spec
from fluxfarm.errors import InvalidField, MalformedBody, UnsupportedMediaType
from fluxfarm.jobs import JobState
from fluxfarm.scopes import Scope
from storage.campaign_records import Campaign
from storage.database import Session
from storage.repository import campaign_assets, campaign_ends, campaigns, ledger, tenants
from storage.repository.jobs import Filter

YAML: Final = ("application/yaml", "text/yaml", "application/x-yaml", "text/x-yaml")
MOST_RETRIED: Final = 1_000  #: in one transaction

router = APIRouter(prefix="/v1/campaigns", tags=["campaigns"])

Name = Annotated[str, Path(min_length=1, max_length=80, description="The campaign's name or id.")]

EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "small": {
        "summary": "Two products in two sizes",
        "value": {
            "name": "spring",
            "model": "fluxfarm/flux-2-klein-small",
            "prompt": "{product} on a stone table, {mood} light",
            "rows": [{"sku": "A1", "product": "Olive oil"}, {"sku": "B2", "product": "Honey"}],
            "key": "sku",
            "axes": {"mood": ["morning"]},
            "placements": ["64x64", {"name": "wide", "size": "128x64"}],
        },
    }
}


async def read_spec(request: Request, farm: FarmPart, secret: Secret) -> Callable[[], Spec]:
    """How to read the body, which has come in; the key is checked before a byte of it.

    Raises:
        UnsupportedMediaType: neither JSON nor YAML.
        PayloadTooLarge: over ``FLUXFARM_CAMPAIGN_LIMIT``.
    """
    await check_caller(farm, secret, Scope.CAMPAIGNS)
    kind, _ = media_type(request)
    if kind != "application/json" and kind not in YAML:
        raise UnsupportedMediaType("Send the campaign as application/json or application/yaml, in UTF-8.")
    raw = b"".join([part async for part in capped(request, farm.settings.campaign_limit)])
    return (lambda: check(parse_json(raw))) if kind == "application/json" else (lambda: read_source(_text(raw)).spec)


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise MalformedBody("The body is not UTF-8.") from None


SpecBody = Annotated[Callable[[], Spec], Depends(read_spec)]


@router.post(
    "",
    operation_id="createCampaign",
    status_code=201,
    responses={
        201: {"model": CampaignReply, "description": "Stored, with all its jobs"},
        200: {"model": CampaignReply | PlanReply, "description": "The plan; or the same campaign, made before"},
        **problems(400, 401, 403, 404, 409, 413, 415),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Spec"}, "examples": EXAMPLES},
                "application/yaml": {"schema": {"$ref": "#/components/schemas/Spec"}},
            },
        }
    },
)
async def create_campaign(
    farm: FarmPart,
    secret: Secret,
    creation: Making,
    body: SpecBody,
    dry_run: Annotated[bool, Query(alias="dryRun", description="Only plan; nothing is stored.")] = False,
    start: Annotated[bool, Query(description="Let it run at once; else `resume` starts it.")] = True,
) -> Response:
    """Make a campaign, or plan it.

    All its jobs are stored in one transaction, or none. The same campaign again (by name and content) is a 200 that
    shows the first; another one of the same name is a 409.
    """
    do = partial(_plan, farm, secret) if dry_run else partial(_create, farm, secret, creation, start)
    return await to_thread.run_sync(do, body, limiter=farm.pictures)


def _plan(farm: Farm, secret: str, body: Callable[[], Spec]) -> Response:
    prepared = prepare(farm, secret, body(), look_outside=True)
    with farm.database.transaction() as session:
        return reply(PlanReply(plan=plan_of(session, prepared)))


def _create(farm: Farm, secret: str, creation: Creation, start: bool, body: Callable[[], Spec]) -> Response:
    spec = body()
    creation.enter(Scope.CAMPAIGNS, spec)
    prepared = prepare(farm, secret, spec, look_outside=False)
    campaign, is_new = create(farm, secret, prepared, start=start)
    with farm.database.transaction() as session:
        told = CampaignReply(
            campaign=campaign_record(session, campaigns.read(session, campaign.tenant_id, campaign.name))
        )
    location = f"{farm.settings.base_url}/v1/campaigns/{campaign.name}"
    return creation.close(reply(told, 201 if is_new else 200, {"Location": location}))


@router.get("", operation_id="listCampaigns", responses={200: {"model": CampaignPage}, **problems(400, 401, 403)})
def list_campaigns(
    farm: FarmPart,
    secret: Secret,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[
        str | None,
        Query(max_length=40, description="`nextCursor` of the page before.", json_schema_extra={"format": "date-time"}),
    ] = None,
) -> Response:
    """List campaigns, the newest first."""
    before = read_moment(cursor)
    with farm.database.statements() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
    records, following = farm.replica.read(lambda session: listed(session, key.tenant_id, before, limit))
    return reply(CampaignPage(data=records, next_cursor=None if following is None else following.isoformat()))


def listed(
    session: Session, tenant_id: UUID, before: datetime | None, limit: int
) -> tuple[list[CampaignRecord], datetime | None]:
    """Some campaigns, the newest first, and the moment behind which the next ones are."""
    found = campaigns.list_page(session, tenant_id, before=before, limit=limit + 1)
    following = found[limit - 1].created_at if len(found) > limit else None
    return [campaign_record(session, one) for one in found[:limit]], following


def read_moment(cursor: str | None) -> datetime | None:
    """The place that a cursor names.

    Raises:
        InvalidField: no cursor of this farm.
    """
    if cursor is None:
        return None
    with suppress(ValueError, OverflowError):
        return datetime.fromisoformat(cursor).astimezone(UTC)
    raise InvalidField("cursor is not one that this farm gave out; take nextCursor as it is.", param="cursor")


@router.get(
    "/{name}", operation_id="readCampaign", responses={200: {"model": CampaignReply}, **problems(401, 403, 404)}
)
def read_campaign(farm: FarmPart, secret: Secret, name: Name) -> Response:
    """Read a campaign: its state, how many files are done, what it cost, when it will be done."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
        return _shown(farm, session, campaigns.read(session, key.tenant_id, name))


def _shown(_farm: Farm, session: Any, campaign: Campaign) -> Response:
    return reply(CampaignReply(campaign=campaign_record(session, campaign)))


_STEERED: Final[dict[int | str, dict[str, Any]]] = {200: {"model": CampaignReply}, **problems(401, 403, 404, 409)}


@router.post("/{name}/pause", operation_id="pauseCampaign", responses=_STEERED)
def pause_campaign(farm: FarmPart, secret: Secret, name: Name) -> Response:
    """Hold a campaign back: jobs in flight finish, nothing new starts."""
    return _wish(farm, secret, name, "pause")


@router.post("/{name}/resume", operation_id="resumeCampaign", responses=_STEERED)
def resume_campaign(farm: FarmPart, secret: Secret, name: Name) -> Response:
    """Let a campaign run, or run on."""
    return _wish(farm, secret, name, "run")


@router.post("/{name}/cancel", operation_id="cancelCampaign", responses=_STEERED)
def cancel_campaign(farm: FarmPart, secret: Secret, name: Name) -> Response:
    """End a campaign: jobs in flight finish, all others are CANCELED. This is final."""
    return _wish(farm, secret, name, "cancel")


def _wish(farm: Farm, secret: str, name: str, wanted: campaigns.Wish) -> Response:
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.CAMPAIGNS)
        found = campaigns.wish(session, key.tenant_id, name, wanted)
        if wanted == "cancel":
            ended = campaigns.cancel_waiting(session, key.tenant_id, found.name, CAMPAIGN_CANCELED)
        shown = _shown(farm, session, found)
        queue = campaigns.totals(session, found).queue
        if wanted == "cancel" and ended:
            campaign_ends.tell(session, [(key.tenant_id, found.name)])
    if wanted == "run" and queue is not None:
        dispatch(farm, queue)
    if found.webhook_id is not None and wanted == "cancel":
        farm.notifier.hurry(found.webhook_id)
    return shown


@router.delete("/{name}", operation_id="eraseCampaign", status_code=204, responses=problems(401, 403, 404))
def erase_campaign(farm: FarmPart, secret: Secret, name: Name) -> Response:
    """Erase a campaign: its texts, reviews and share links, and every job of it with its pictures.

    What runs is stopped. The records are gone at once; the files of many jobs take the sweeper some minutes.
    """
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.CAMPAIGNS)
        gone = campaigns.erase(session, key.tenant_id, name)
    farm.previews.forget(*gone)
    return Response(status_code=204)


class RetriedCampaign(BaseModel):
    """What a retry came to."""

    retried: int = Field(description="Jobs that were made anew.")
    skipped: int = Field(description="Jobs that cannot be tried again, as a picture that they need was deleted.")


@router.post(
    "/{name}/retry",
    operation_id="retryCampaign",
    responses={200: {"model": RetriedCampaign}, **problems(401, 403, 404, 409)},
)
def retry_campaign(farm: FarmPart, secret: Secret, creation: Making, name: Name) -> Response:
    """Try the failed jobs of a campaign again, and only those; the call can be repeated without harm."""
    with farm.database.transaction() as session:
        key = creation.begin(session, Scope.CAMPAIGNS)
        found = campaigns.not_canceled(session, key.tenant_id, name)
    retried = skipped = 0
    before: int | None = None
    while True:
        wanted = Filter(status=JobState.FAILED, campaign=found.name)
        bulk = retry_many(farm, secret, wanted, before=before, limit=MOST_RETRIED, scope=Scope.CAMPAIGNS)
        retried, skipped, before = retried + len(bulk.jobs), skipped + len(bulk.skipped), bulk.next_before
        if before is None:
            return creation.close(reply(RetriedCampaign(retried=retried, skipped=skipped)))


class Listing(BaseModel):
    """Which files, and how many."""

    model_config = ConfigDict(extra="forbid")

    status: JobState | None = None
    drafts: bool | None = Field(None, description="Only drafts, or only masters.")
    verdict: str | None = Field(None, pattern="^(none|approve|reject|regenerate)$")
    cursor: int = Field(-1, ge=-1, le=2**31 - 1)
    limit: int = Field(100, ge=1, le=1000)


@router.get(
    "/{name}/assets", operation_id="listAssets", responses={200: {"model": AssetPage}, **problems(400, 401, 403, 404)}
)
def list_assets(farm: FarmPart, secret: Secret, name: Name, wanted: Annotated[Listing, Query()]) -> Response:
    """List the files of a campaign in their order."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
        found = campaigns.read(session, key.tenant_id, name)
        page = campaign_assets.page(
            session,
            found.id,
            after=wanted.cursor,
            limit=wanted.limit,
            status=None if wanted.status is None else wanted.status.value,
            drafts=wanted.drafts,
            verdict=wanted.verdict,
        )
    following = page[-1].n if len(page) == wanted.limit else None
    return reply(AssetPage(data=[asset_record(farm, one) for one in page], next_cursor=following))


class Changes(Strict):
    """What may change while a campaign runs."""

    budget: Annotated[Decimal, Field(strict=False, gt=0, max_digits=12, decimal_places=6)] | None = Field(
        description="USD that all jobs together may cost; null: no limit of its own."
    )


@router.patch(
    "/{name}",
    operation_id="changeCampaign",
    responses={200: {"model": CampaignReply}, **problems(400, 401, 403, 404, 413, 415)},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Changes"}}},
        }
    },
)
def change_campaign(farm: FarmPart, secret: Secret, name: Name, body: JsonBody) -> Response:
    """Change the budget, also while the campaign runs.

    What is reserved or spent beyond a lower budget stays; nothing more is accepted.
    """
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.CAMPAIGNS)
        changes = read(Changes, parse_json(body))
        found = campaigns.read(session, key.tenant_id, name)
        ledger.set_cap(session, key.tenant_id, found.name, changes.budget)
        return _shown(farm, session, found)
