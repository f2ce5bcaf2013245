"""People and pictures: verdicts, new tries with another prompt or seed, and masters of what was picked."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4

from fastapi import Response

from api.auth import allowed
from api.creation import Creation
from api.farm import Farm
from api.routing import HealthBoard, Surroundings, look_around, survey, wish_of
from api.submit import dispatch
from fluxfarm.campaigns.assets import of_picture
from fluxfarm.campaigns.layout import DRAFTS, Layout, lay_out, place_of
from fluxfarm.campaigns.naming import NameFault, file_name
from fluxfarm.campaigns.placements import Place
from fluxfarm.campaigns.requests import prompt_object
from fluxfarm.campaigns.requests import wish_of as wish_of_spec
from fluxfarm.campaigns.rows import Issues
from fluxfarm.campaigns.source import invalid
from fluxfarm.campaigns.spec import Spec
from fluxfarm.errors import BadRequest, Conflict, Gone, InvalidField, Issue, NotFound
from fluxfarm.jobs import JobState, Lane
from fluxfarm.request import MAX_SEED, RenderRequest, check_prompt
from fluxfarm.scopes import Scope
from storage.campaign_records import Campaign
from storage.database import Session
from storage.records import Job
from storage.repository import campaign_assets, campaign_reviews, campaigns, copied_jobs, jobs, references, tenants
from storage.repository.campaign_assets import Listed, NewAsset
from storage.repository.jobs import NewJob
from storage.repository.tenants import Caller

REGENERATE: Final = "regenerate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What is said of some files; ``prompt`` and ``seed`` are for a new try only."""

    files: tuple[str, ...]
    verdict: str
    comment: str = ""
    author: str = ""
    prompt: str | None = None
    seed: int | None = None


def say(
    farm: Farm, creation: Creation, said: bytes, name: str, word: Word, answer: Callable[[int], Response]
) -> Response:
    """Note the word on every file, and render those anew that are to be regenerated; all or nothing.

    ``answer`` words the reply, which is kept with the rest, to the count of the files.

    Raises:
        NotFound: no such campaign, or one of the files is none of it.
        Conflict: there is no picture yet to speak of, or the campaign was canceled.
        Gone: a new try needs what was erased.
    """
    health = look_around(farm)
    with farm.database.transaction() as session:
        key = creation.begin(session, Scope.CAMPAIGNS, said)
        campaign = campaigns.read(session, key.tenant_id, name)
        files = _files(session, campaign, word.files)
        author = word.author or str(key.id)
        if word.verdict != "comment":
            _check_over(files)
        campaign_reviews.add(session, campaign.id, files, verdict=word.verdict, comment=word.comment, author=author)
        queues = _regenerate(farm, session, key, campaign, files, word, health) if word.verdict == REGENERATE else set()
        told = creation.keep(session, answer(len(files)))
    for queue in queues:
        dispatch(farm, queue)
    return told


def _files(session: Session, campaign: Campaign, names: Sequence[str]) -> list[Listed]:
    found = campaign_assets.named(session, campaign.id, names)
    missing = set(names) - {one.name for one in found}
    if missing:
        raise NotFound(f"The campaign has no file {min(missing)[:200]!r}.")
    return found


def _check_over(files: Sequence[Listed]) -> None:
    for one in files:
        if one.status in (JobState.QUEUED, JobState.RUNNING):
            raise Conflict(f"{one.name!r} is still {one.status}; wait for its picture.")
        if one.status is None:
            raise Conflict(f"The job of {one.name!r} was erased.")


def _regenerate(
    farm: Farm,
    session: Session,
    key: Caller,
    campaign: Campaign,
    files: Sequence[Listed],
    word: Word,
    health: HealthBoard,
) -> set[str]:
    campaigns.not_canceled(session, key.tenant_id, campaign.name)
    old = campaign_assets.jobs_of(session, key.tenant_id, files)
    by_job: dict[UUID, list[Listed]] = {}
    for one in files:
        assert one.job_uuid is not None
        by_job.setdefault(one.job_uuid, []).append(one)
    queues = set()
    for uuid, same in by_job.items():
        _check_references(session, campaign, old[uuid])
        before = old[uuid].render_request
        # With neither a prompt nor a seed said, only a new seed can give another picture.
        again = (
            word.seed if word.seed is not None else (before.seeds[0] if word.prompt else secrets.randbelow(MAX_SEED))
        )
        prompt = check_prompt(word.prompt) if word.prompt else before.prompt
        request = before.model_copy(update={"prompt": prompt, "seeds": (again,)})
        wish = wish_of(old[uuid])
        around = survey(farm, session, key.tenant_id, request.model, wish, health, key.permit)
        new = _like(old[uuid], request, around)
        jobs.create(session, new)
        campaign_assets.point(session, campaign.id, [one.n for one in same], new.uuid, again)
        queues.add(new.queue)
    return queues


def _check_references(session: Session, campaign: Campaign, old: Job) -> None:
    if references.gone(session, campaign, old):
        raise Gone(f"A reference of job {old.uuid} was erased, as its time was over.", job=old.uuid)


def _like(old: Job, request: RenderRequest, around: Surroundings) -> NewJob:
    if not request.prompt:
        raise Gone(f"The prompt of job {old.uuid} was erased, as its time was over; say another.")
    way = around.choose(request, (), wish_of(old))
    return NewJob(
        uuid=uuid4(),
        tenant_id=old.tenant_id,
        request=request,
        prompt_object=prompt_object(request, old.prompt_object.get("images", ())),
        queue=way.queue,
        route=way.plan,
        price=way.price,
        lane=list(Lane)[old.lane],
        priority=old.priority,
        provider=old.provider,
        campaign=old.campaign,
        tags=tuple(old.tags),
        webhook_id=old.webhook_id,
    )


@dataclass(frozen=True, slots=True)
class Masters:
    """Files that were ordered, and those that were there already."""

    made: list[str]
    existing: list[str]


def make_masters(farm: Farm, secret: str, name: str, picks: Sequence[str], placements: Sequence[str]) -> Masters:
    """Render picked pictures in full, with their prompt and seed: at their own placement, or at each of these.

    A file that is there already is left as it is, so that the call can be repeated.

    Raises:
        NotFound: no such campaign, or a pick is no file of it.
        Conflict: a pick has no picture, or the campaign was canceled.
        Gone: a pick's prompt or reference was erased.
        InvalidCampaign: a placement that the model cannot render, or a name that is not safe.
    """
    health = look_around(farm)
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.CAMPAIGNS)
        campaign = campaigns.not_canceled(session, key.tenant_id, name)
        spec = Spec.model_validate(campaign.spec | {"rows": None})
        files = _files(session, campaign, picks) if picks else _approved(session, campaign)
        for one in files:
            if not one.has_picture:
                raise Conflict(f"{one.name!r} has no picture to pick.")
        wanted = _wanted(spec, files, placements)
        wish = wish_of_spec(spec)
        around = survey(farm, session, key.tenant_id, wanted.layout.profile.slug, wish, health, key.permit)
        taken = campaign_assets.taken(session, campaign.id, [name for _, _, name in wanted.files])
        fresh = [one for one in wanted.files if one[2].lower() not in taken]
        queues = _order(session, campaign, wanted.layout, fresh, around)
    for queue in queues:
        dispatch(farm, queue)
    return Masters([name for _, _, name in fresh], [name for _, _, name in wanted.files if name.lower() in taken])


def _approved(session: Session, campaign: Campaign) -> list[Listed]:
    files = campaign_assets.page(session, campaign.id, limit=100_000, drafts=True, verdict="approve")
    if not files:
        raise Conflict("No draft is approved; approve some, or name the picks.")
    return files


@dataclass(frozen=True, slots=True)
class _Wanted:
    layout: Layout
    files: list[tuple[Listed, Place, str]]


def _wanted(spec: Spec, picks: Sequence[Listed], placements: Sequence[str]) -> _Wanted:
    issues = Issues()
    layout = lay_out(spec, issues, draft=False)
    if layout is None:
        raise invalid(issues.kept, issues.total)
    known = {place.name: place for place in layout.places}
    asked: list[Place] = []
    for index, text in enumerate(placements):
        try:
            asked.append(known.get(text) or place_of(text, None, spec, layout.profile))
        except BadRequest as error:
            issues.add(Issue(message=error.message, param=f"placements.{index}"))
    if issues:
        raise invalid(issues.kept, issues.total)
    files: dict[str, tuple[Listed, Place, str]] = {}
    for pick in picks:
        for place in asked or [known.get(pick.placement) or layout.places[0]]:
            name = _name(layout, pick, place)
            files.setdefault(name.lower(), (pick, place, name))
    return _Wanted(layout, list(files.values()))


def _name(layout: Layout, pick: Listed, place: Place) -> str:
    values = of_picture(pick.values, place, pick.variant, pick.seed)
    try:
        name = file_name(layout.naming, values, layout.extension)
    except NameFault as fault:
        raise InvalidField(f"A master of {pick.name!r} cannot be named: {fault}.", param="picks") from None
    if place.name == pick.placement or "placement" in layout.naming.names:
        return name
    stem, _, extension = name.rpartition(".")
    return f"{stem}-{place.name}.{extension}"


def _order(
    session: Session,
    campaign: Campaign,
    layout: Layout,
    files: Sequence[tuple[Listed, Place, str]],
    around: Surroundings,
) -> set[str]:
    old = campaign_assets.jobs_of(session, campaign.tenant_id, [pick for pick, _, _ in files])
    first = campaign_assets.next_number(session, campaign.id)
    new: list[tuple[NewJob, NewAsset]] = []
    for number, (pick, place, name) in enumerate(files, first):
        assert pick.job_uuid is not None
        job = old[pick.job_uuid]
        _check_references(session, campaign, job)
        size = {"width": place.size.width, "height": place.size.height, "steps": layout.steps}
        order = _like(job, job.render_request.model_copy(update=size), around)
        asset = NewAsset(
            n=number,
            name=name.removeprefix(DRAFTS),
            is_draft=False,
            draft_n=pick.n,
            row=pick.row,
            key=pick.key,
            locale=pick.locale,
            placement=place.name,
            variant=pick.variant,
            seed=pick.seed,
            values=pick.values,
            job_uuid=order.uuid,
        )
        new.append((order, asset))
    ordered = sorted((order for order, _ in new), key=lambda one: (one.request.size, one.request.prompt))
    queues = copied_jobs.copy_many(session, ordered)
    campaign_assets.add(session, campaign.id, (asset for _, asset in new))
    return queues
