"""Campaigns, plans and files as their owners see them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api import campaign_warnings
from api.campaigns import Prepared, by_shape
from api.farm import Farm
from fluxfarm.airecord import Problem
from fluxfarm.campaigns.record import (
    AssetRecord,
    CampaignRecord,
    CampaignState,
    Counts,
    Eta,
    Plan,
    Route,
    state_of,
)
from fluxfarm.campaigns.requests import render_request
from fluxfarm.campaigns.spec import Spec
from fluxfarm.costs import gpu_seconds
from fluxfarm.jobs import JobState
from fluxfarm.remotes import LOCAL
from storage.campaign_records import Campaign
from storage.database import Session
from storage.repository import campaign_assets, campaign_pace, campaigns, ledger, workers
from storage.repository.campaign_assets import Count, Listed

SHOWN = 10  #: prompts and names in a plan


class CampaignReply(BaseModel):
    """One campaign."""

    campaign: CampaignRecord


class CampaignPage(BaseModel):
    """Some campaigns, the newest first."""

    model_config = ConfigDict(populate_by_name=True)

    data: list[CampaignRecord]
    next_cursor: str | None = Field(alias="nextCursor", description="Give it as `cursor` to go on; null: the end.")


class PlanReply(BaseModel):
    """What a campaign would do."""

    plan: Plan


class AssetPage(BaseModel):
    """Some files, in their order."""

    model_config = ConfigDict(populate_by_name=True)

    data: list[AssetRecord]
    next_cursor: int | None = Field(alias="nextCursor", description="Give it as `cursor` to go on; null: the end.")


def spec_of(campaign: Campaign) -> Spec:
    """The specification that it was made from, without its rows."""
    return Spec.model_validate(campaign.spec | {"rows": None})


def campaign_record(session: Session, campaign: Campaign) -> CampaignRecord:
    """The campaign as it stands in this transaction."""
    spec = spec_of(campaign)
    found = campaign_assets.count(session, campaign.id)
    sums = campaigns.totals(session, campaign)
    money = ledger.standing(session, campaign.tenant_id, campaign.name)
    state = state_of(campaign.wish, sums.open)
    eta = None
    if state is CampaignState.RUNNING and sums.queue is not None:
        eta = eta_of(session, campaign.tenant_id, sums.queue, spec, sums.gpu_seconds_left)
    return CampaignRecord(
        id=campaign.id,
        name=campaign.name,
        state=state,
        model=spec.model,
        created_at=campaign.created_at,
        arithmetic=campaign.arithmetic,
        files=_counts(one for one in found if not one.is_draft),
        drafts=None if spec.draft is None else _counts(one for one in found if one.is_draft),
        spent=money.spent,
        reserved=money.reserved,
        budget=money.cap,
        images_per_minute=sums.last_minute,
        gpu_seconds_left=round(sums.gpu_seconds_left, 3),
        eta=eta,
        deadline=None if spec.deadline is None else datetime.fromisoformat(spec.deadline),
        review=spec.review,
        started_at=sums.started_at,
        finished_at=None if sums.open else sums.finished_at,
    )


def _counts(found: Any) -> Counts:
    rows: list[Count] = list(found)
    by_state = {(row.status.lower() if row.status is not None else "erased"): row.files for row in rows}
    return Counts(total=sum(row.files for row in rows), **by_state)


def eta_of(session: Session, tenant_id: Any, queue: str, spec: Spec, seconds: float) -> Eta | None:
    """When so many GPU-seconds of this campaign will be done."""
    able = sum(queue in worker.queues for worker in workers.alive(session))
    found = campaign_pace.forecast(
        session, tenant_id=tenant_id, queue=queue, lane=spec.lane.rank, workers=able, seconds=seconds
    )
    return None if found is None else Eta(p50=found.p50, p90=found.p90, measured=found.measured)


def expected_seconds(prepared: Prepared) -> float:
    """GPU-seconds of everything that it renders."""
    one = partial(render_request, prepared.spec, prepared.expansion.layout, prompt="", seed=0)
    return sum(
        len(assets) * gpu_seconds(one(size=size, references=[""] * references))
        for (size, references), assets in by_shape(prepared.expansion.renders).items()
    )


def plan_of(session: Session, prepared: Prepared) -> Plan:
    """What the campaign would do, and take, and cost."""
    spec, expansion = prepared.spec, prepared.expansion
    layout = expansion.layout
    seconds = expected_seconds(prepared)
    eta = eta_of(session, prepared.tenant_id, prepared.queue, spec, seconds)
    profile = layout.profile
    note = "" if eta is not None else "No worker of this model is alive, or nothing was measured here in seven days."
    return Plan(
        name=spec.name,
        exists=prepared.twin is not None,
        model=profile.slug,
        arithmetic=expansion.arithmetic,
        files=len(expansion.assets),
        renders=len(expansion.renders),
        duplicates=len(expansion.assets) - len(expansion.renders),
        drafts=spec.draft is not None,
        sizes={place.name: str(place.size) for place in layout.places},
        seeds=list(layout.seeds),
        gpu_seconds=round(seconds, 3),
        routes=_routes(prepared, seconds),
        budget=spec.budget,
        eta=eta,
        eta_note=note,
        deadline=prepared.deadline,
        warnings=campaign_warnings.of_campaign(prepared, eta),
        row_warnings=campaign_warnings.of_rows(prepared),
        prompts=list(dict.fromkeys(asset.prompt for asset in expansion.assets[: SHOWN * 20]))[:SHOWN],
        names=[asset.name for asset in expansion.assets[:SHOWN]],
    )


def _routes(prepared: Prepared, seconds: float) -> list[Route]:
    """Who could render the whole campaign, and for how much."""
    usd: dict[str, Decimal] = {}
    notes: dict[str, str] = {}
    for shape, assets in by_shape(prepared.expansion.renders).items():
        way = prepared.routes[shape]
        if way.plan is None:
            usd[LOCAL] = usd.get(LOCAL, Decimal(0)) + way.price * len(assets)
            continue
        for one in way.plan.candidates:
            usd[one.provider] = usd.get(one.provider, Decimal(0)) + one.price * len(assets)
            notes[one.provider] = notes.get(one.provider) or ("" if one.for_now else one.refused or "")
    return [
        Route(
            provider=name,
            available=not notes.get(name),
            gpu_seconds=round(seconds, 3) if name == LOCAL else None,
            usd=None if name == LOCAL and not cost else cost,
            note=notes.get(name) or ("own GPUs" if name == LOCAL else "by its price list"),
        )
        for name, cost in usd.items()
    ]


def asset_record(farm: Farm, one: Listed) -> AssetRecord:
    """A file as it stands."""
    url = f"{farm.settings.base_url}/v1/assets/{one.job_uuid}/0" if one.has_picture else None
    return AssetRecord(
        name=one.name,
        status=None if one.status is None else JobState(one.status),
        verdict=one.verdict,
        draft=one.is_draft,
        row=one.row,
        key=one.key,
        locale=one.locale,
        placement=one.placement,
        variant=one.variant,
        seed=one.seed,
        prompt=one.prompt,
        width=one.width,
        height=one.height,
        job=one.job_uuid,
        url=url,
        error=None if one.error is None else Problem.model_validate(one.error),
    )
