"""Campaigns on their way in: planned without a trace, or stored with all their jobs in one transaction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

from api import campaign_references as pictures
from api.auth import allowed
from api.campaign_references import Pictures
from api.farm import Farm
from api.outside_pictures import forget, keeping
from api.routing import Route, Surroundings, check_wish, look_around, survey
from api.strict import future
from api.submit import dispatch
from api.targets import is_id, look_up, new_secret, read_target
from fluxfarm.campaigns.assets import Asset
from fluxfarm.campaigns.expansion import Expansion, expand
from fluxfarm.campaigns.requests import prompt_object, render_request, wish_of
from fluxfarm.campaigns.source import as_json, invalid
from fluxfarm.campaigns.spec import Spec
from fluxfarm.errors import BadRequest, CampaignExists, Issue, NoRoute
from fluxfarm.scopes import Scope
from fluxfarm.sizes import Size
from storage.campaign_records import Campaign
from storage.database import Session
from storage.records import Reference
from storage.repository import campaign_assets, campaigns, copied_jobs, endpoints, ledger, tenants
from storage.repository.campaign_assets import NewAsset
from storage.repository.campaigns import Wish
from storage.repository.jobs import NewJob

FIELD: Final = "webhook"


Shape = tuple[Size, int]  #: of a picture, and how many references it has


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A campaign that was understood; ``twin`` is the same one, made before."""

    tenant_id: UUID
    spec: Spec
    expansion: Expansion
    around: Surroundings
    routes: Mapping[Shape, Route]  #: by the size and the number of references, before these are looked at
    deadline: datetime | None
    pictures: Pictures
    digest: bytes
    target: str | None
    twin: Campaign | None

    @property
    def queue(self) -> str:
        """Of its first picture."""
        return next(iter(self.routes.values())).queue


def by_shape(assets: Iterable[Asset]) -> dict[Shape, list[Asset]]:
    """Those of one size and number of references together."""
    found: dict[Shape, list[Asset]] = {}
    for asset in assets:
        found.setdefault((asset.place.size, len(asset.references)), []).append(asset)
    return found


def prepare(farm: Farm, secret: str, spec: Spec, *, look_outside: bool) -> Prepared:
    """Check everything; nothing is stored. ``look_outside`` is whether URLs are opened, which ``create`` does too.

    Raises:
        InvalidCampaign: with rows, columns and reasons.
        CampaignExists: another campaign of the tenant has the name.
        LicenceForbidden, ModelForbidden: the tenant may not render the model.
        NoRoute: nobody here can.
    """
    expansion = expand(spec)
    target = _checked("webhook", lambda: read_target(farm, spec.webhook))
    health = look_around(farm)
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.CAMPAIGNS)
        wish = wish_of(spec)
        check_wish(farm, wish)
        around = survey(farm, session, key.tenant_id, expansion.layout.profile.slug, wish, health, key.permit)
        routes = _routes(expansion, spec, around)
        found = pictures.find(session, key.tenant_id, expansion.assets, spec.files)
        digest = content_digest(spec, found)
        twin = _twin(session, key.tenant_id, spec.name, digest)
        if twin is None and target is not None and is_id(target):
            _checked("webhook", lambda: endpoints.resolve(session, key.tenant_id, target))
    # After the look for a twin: to run the same file again must not fail as its deadline has passed meanwhile.
    deadline = None
    if twin is None:
        deadline = _checked("deadline", lambda: future(spec.deadline, "deadline", datetime.now(UTC)))
        if look_outside:
            pictures.fetch(farm, found, expansion.assets)
    return Prepared(
        tenant_id=key.tenant_id,
        spec=spec,
        expansion=expansion,
        around=around,
        routes=routes,
        deadline=deadline,
        pictures=found,
        digest=digest,
        target=target,
        twin=twin,
    )


def _routes(expansion: Expansion, spec: Spec, around: Surroundings) -> dict[Shape, Route]:
    """Where each shape is rendered; all that nobody can render are named with their first row.

    Raises:
        NoRoute: nobody can render any of them.
        InvalidCampaign: nobody can render some.
    """
    found: dict[Shape, Route] = {}
    issues: list[Issue] = []
    refused: NoRoute | None = None
    for (size, references), assets in by_shape(expansion.renders).items():
        request = render_request(
            spec, expansion.layout, prompt=assets[0].prompt, size=size, seed=0, references=[""] * references
        )
        try:
            found[size, references] = around.choose(request, (), wish_of(spec))
        except NoRoute as error:
            refused = error
            param = "references" if references else "placements"
            issues.append(Issue(message=f"{size}: {error.message}", param=param, row=assets[0].row or None))
    if refused is not None and not found:
        raise refused
    if issues:
        raise invalid(issues)
    return found


def _checked(param: str, read: Any) -> Any:
    try:
        return read()
    except BadRequest as error:
        raise invalid([Issue(message=error.message, param=param)]) from None


def content_digest(spec: Spec, found: Pictures) -> bytes:
    """What makes two campaigns the same: everything but the budget, which may change while it runs.

    A default that is written out says nothing new, and a field that is added later must change no stored digest.
    """
    told = spec.model_dump(mode="json", exclude={"files", "budget"}, exclude_defaults=True)
    return hashlib.sha256(json.dumps([told, found.identity()], sort_keys=True).encode()).digest()


def _twin(session: Session, tenant_id: UUID, name: str, digest: bytes) -> Campaign | None:
    other = campaigns.find(session, tenant_id, name)
    if other is not None and other.digest != digest:
        message = (
            f"There is a campaign {name!r} with other content, made {other.created_at:%Y-%m-%d %H:%M} UTC; "
            "give this one another name."
        )
        raise CampaignExists(message, param="name")
    return other


def create(farm: Farm, secret: str, prepared: Prepared, *, start: bool) -> tuple[Campaign, bool]:
    """Store the campaign and its jobs, all or nothing; the second value is whether it is new.

    Raises:
        InvalidCampaign: a reference cannot be fetched.
        CampaignExists: somebody was faster, with other content.
        BudgetExceeded: the whole campaign is estimated at more than its budget, or the tenant's, has left.
    """
    if prepared.twin is not None:
        return prepared.twin, False
    fetched = pictures.fetch(farm, prepared.pictures, prepared.expansion.assets)
    if prepared.target is not None and not is_id(prepared.target):
        look_up(farm, prepared.target, FIELD)
    with keeping(farm, prepared.tenant_id) as keeper:
        kept = {text: keeper.keep(picture) for text, picture in fetched.items()}
        prepared.pictures.kept.update(kept)
        with farm.database.transaction() as session:
            allowed(tenants.authenticate(session, secret), Scope.CAMPAIGNS)  # again: it may be revoked by now
            made, queues = _store(farm, session, prepared, kept, "run" if start else "wait")
    if queues is None:
        forget(farm, keeper.rows)
    elif start:
        for queue in queues:
            dispatch(farm, queue)
    return made, queues is not None


def _store(
    farm: Farm, session: Session, prepared: Prepared, kept: Mapping[str, Reference], wish: Wish
) -> tuple[Campaign, set[str] | None]:
    """The campaign, and the queues of its jobs; None: somebody has made the same one this moment."""
    webhook_id = None
    if prepared.target is not None:
        sealed = farm.sealer.seal(new_secret())
        webhook_id = endpoints.resolve_or_create(session, prepared.tenant_id, prepared.target, sealed)
    made = _row(prepared, webhook_id, wish)
    if not campaigns.create(session, made):
        found = _twin(session, prepared.tenant_id, prepared.spec.name, prepared.digest)
        assert found is not None
        return found, None
    session.add_all(kept.values())
    ledger.set_cap(session, prepared.tenant_id, made.name, prepared.spec.budget)
    return made, store(session, made, prepared)


def _row(prepared: Prepared, webhook_id: str | None, wish: str) -> Campaign:
    return Campaign(
        id=uuid4(),
        tenant_id=prepared.tenant_id,
        name=prepared.spec.name,
        digest=prepared.digest,
        spec=as_json(prepared.spec.model_copy(update={"rows": None, "files": {}})),
        references=prepared.pictures.stored(),
        arithmetic=prepared.expansion.arithmetic,
        wish=wish,
        webhook_id=webhook_id,
    )


def store(session: Session, campaign: Campaign, prepared: Prepared) -> set[str]:
    """The jobs, in the order that shares most (equal sizes, then equal prompts), and the files; gives their queues."""
    expansion = prepared.expansion
    uuids = {asset.n: uuid4() for asset in expansion.renders}
    ordered = sorted(expansion.renders, key=lambda one: (one.place.size, one.prompt, one.references, one.seed))
    queues = copied_jobs.copy_many(session, _jobs(campaign, prepared, ordered, uuids))
    campaign_assets.add(
        session,
        campaign.id,
        (
            NewAsset(
                n=asset.n,
                name=asset.name,
                is_draft=prepared.spec.draft is not None,
                row=asset.row,
                key=asset.key,
                locale=asset.locale,
                placement=asset.place.name,
                variant=asset.variant,
                seed=asset.seed,
                values=dict(asset.values),
                job_uuid=uuids[asset.render],
            )
            for asset in expansion.assets
        ),
    )
    return queues


def _jobs(campaign: Campaign, prepared: Prepared, assets: list[Asset], uuids: dict[int, UUID]) -> Iterator[NewJob]:
    spec, layout = prepared.spec, prepared.expansion.layout
    kept = prepared.pictures.kept
    wish = wish_of(spec)
    ways: dict[tuple[Size, ...], Route] = {}  # by what a route hangs on: the sizes of the picture and its references
    for asset in assets:
        references = [kept[text] for text in asset.references]
        request = render_request(
            spec,
            layout,
            prompt=asset.prompt,
            size=asset.place.size,
            seed=asset.seed,
            references=[row.object_key for row in references],
        )
        sizes = [Size(row.width, row.height) for row in references]
        shape = (asset.place.size, *sizes)
        way = ways.get(shape)
        if way is None:
            way = ways[shape] = prepared.around.choose(request, sizes, wish, deadline=prepared.deadline)
        yield NewJob(
            uuid=uuids[asset.n],
            tenant_id=prepared.tenant_id,
            request=request,
            prompt_object=prompt_object(request, [row.id for row in references]),
            queue=way.queue,
            route=way.plan,
            price=way.price,
            lane=spec.lane,
            provider=spec.provider,
            campaign=campaign.name,
            tags=tuple(spec.tags),
            deadline=prepared.deadline,
            webhook_id=campaign.webhook_id if spec.webhook_each else None,
        )
