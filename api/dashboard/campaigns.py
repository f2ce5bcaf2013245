"""Campaigns: planned from dropped files, run, steered, delivered."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

from anyio import to_thread
from fastapi import APIRouter, Form, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from api.auth import allowed
from api.campaign_replies import campaign_record, plan_of
from api.campaigns import create, prepare
from api.dashboard import pages
from api.dashboard.visitors import Looking, Visitor, VisitorPart
from api.review import make_masters
from api.routes import campaigns as native
from api.routes import shares
from api.uploads import keep
from fluxfarm.campaigns.record import Plan
from fluxfarm.campaigns.review_record import Choice
from fluxfarm.campaigns.source import invalid, read_source, with_rows
from fluxfarm.campaigns.spec import Rows, Spec
from fluxfarm.campaigns.starter import ROWS, SPEC
from fluxfarm.errors import BadRequest, FluxfarmError, InvalidCampaign, Issue, NotFound
from fluxfarm.scopes import Scope
from storage.campaign_records import Campaign
from storage.repository import campaigns

SHOWN: Final = 100
MOST_FILES: Final = 100
SOURCES: Final = (".yaml", ".yml", ".json")
TABLES: Final = (".csv", ".jsonl", ".ndjson")
PICTURES: Final = (".png", ".jpg", ".jpeg", ".webp")
ROWS_NAME: Final = "products.csv"
STEPS: Final = {"pause": native.pause_campaign, "resume": native.resume_campaign, "cancel": native.cancel_campaign}

router = APIRouter()


@dataclass(slots=True)
class Draft:
    """What the form holds: it comes back with every answer, so that nothing must be dropped twice."""

    source: str = SPEC
    rows_name: str = ROWS_NAME
    rows: str = ROWS
    files: dict[str, str] = field(default_factory=dict)  #: names of pictures, and the ids that they are kept under

    def spec(self) -> Spec:
        """The specification with its rows inside.

        Raises:
            InvalidCampaign: with lines and columns.
        """
        spec = read_source(self.source).spec
        if spec.rows is not None and spec.rows.file is not None:
            if not self.rows.strip():
                message = f"the rows {spec.rows.file!r} are missing: drop the file beside the specification."
                raise invalid([Issue(message=message, param="rows")])
            is_lines = self.rows_name.lower().endswith((".jsonl", ".ndjson"))
            spec = with_rows(spec, Rows(jsonl=self.rows) if is_lines else Rows(csv=self.rows))
        return spec.model_copy(update={"files": spec.files | self.files})


@router.get("/campaigns")
def list_campaigns(request: Request, visitor: VisitorPart) -> Response:
    """The newest first."""
    with visitor.looking() as looking:
        found = campaigns.list_page(looking.session, looking.caller.tenant_id, before=None, limit=SHOWN)
        records = [campaign_record(looking.session, one) for one in found]
        return pages.page(request, "campaigns.html", looking, campaigns=records)


@router.get("/new-campaign")
def new(request: Request, visitor: VisitorPart) -> Response:
    """The form, with a small campaign to change."""
    return _form(request, visitor, Draft())


@router.post("/campaigns")
async def plan_or_run(request: Request, visitor: VisitorPart) -> Response:
    """Read what was dropped; show the plan, or make the campaign that was planned."""
    await run_in_threadpool(_enter, visitor)
    form = await request.form(max_files=MOST_FILES, max_fields=20, max_part_size=visitor.farm.settings.campaign_limit)
    draft = Draft()
    try:
        draft = _typed(form)
        await _take_files(visitor, form, draft)
        if form.get("do") == "run":
            name = await to_thread.run_sync(_run, visitor, draft, limiter=visitor.farm.pictures)
            return pages.go(f"/campaigns/{name}")
        plan = await to_thread.run_sync(_plan, visitor, draft, limiter=visitor.farm.pictures)
    except FluxfarmError as error:
        return await run_in_threadpool(_form, request, visitor, draft, error=error)
    finally:
        await form.close()
    return await run_in_threadpool(_form, request, visitor, draft, plan=plan)


def _enter(visitor: Visitor) -> None:
    with visitor.looking(Scope.CAMPAIGNS):
        pass


def _typed(form: FormData) -> Draft:
    """The texts of the form.

    Raises:
        BadRequest: the pictures' ids are not as the page sent them.
    """
    draft = Draft()
    for name in ("source", "rows_name", "rows"):
        value = form.get(name)
        if isinstance(value, str):
            setattr(draft, name, value.replace("\r\n", "\n"))
    try:
        files = json.loads(str(form.get("files") or "{}"))
    except ValueError:
        files = None
    if not isinstance(files, dict) or not all(isinstance(one, str) for one in files.values()):
        raise BadRequest("The form is damaged; open the page again and drop the files once more.")
    draft.files = files
    return draft


async def _take_files(visitor: Visitor, form: FormData, draft: Draft) -> None:
    """Put each dropped file in its place, by its ending.

    Raises:
        BadRequest: a file that no campaign can use.
    """
    for file in form.getlist("dropped"):
        if not isinstance(file, UploadFile) or not file.filename:
            continue
        name = file.filename.rpartition("/")[2][:200]
        ending = f".{name.rpartition('.')[2].lower()}"
        if ending in PICTURES:
            row = await keep(visitor.farm, visitor.secret, await file.read(), name)
            draft.files[name] = row.id
        elif ending in SOURCES:
            draft.source = _text(name, await file.read())
        elif ending in TABLES:
            draft.rows, draft.rows_name = _text(name, await file.read()), name
        else:
            raise BadRequest(
                f"{name!r} is of no use here: drop a .yaml, a .csv or .jsonl, and PNG, JPEG or WebP pictures."
            )


def _text(name: str, body: bytes) -> str:
    try:
        return body.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise BadRequest(f"{name!r} is not UTF-8; save it as UTF-8 and drop it again.") from None


def _plan(visitor: Visitor, draft: Draft) -> Plan:
    prepared = prepare(visitor.farm, visitor.secret, draft.spec(), look_outside=True)
    with visitor.farm.database.transaction() as session:
        return plan_of(session, prepared)


def _run(visitor: Visitor, draft: Draft) -> str:
    prepared = prepare(visitor.farm, visitor.secret, draft.spec(), look_outside=False)
    return create(visitor.farm, visitor.secret, prepared, start=True)[0].name


def _form(
    request: Request,
    visitor: Visitor,
    draft: Draft,
    *,
    plan: Plan | None = None,
    error: FluxfarmError | None = None,
) -> Response:
    with visitor.looking(Scope.CAMPAIGNS) as looking:
        return pages.page(
            request,
            "campaign_new.html",
            looking,
            status=200 if error is None else error.status,
            draft=draft,
            files=json.dumps(draft.files),
            plan=plan,
            error=error,
            issues=error.issues if isinstance(error, InvalidCampaign) else (),
            limit=visitor.farm.settings.campaign_limit,
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
