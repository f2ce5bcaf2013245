"""New campaigns: filled in or dropped, planned, run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Annotated, Final, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from api.bodies import parse_form
from api.campaign_replies import plan_of
from api.campaigns import create, prepare
from api.dashboard import pages
from api.dashboard.campaign_form import Fields, name_of_rows
from api.dashboard.visitors import Visitor, VisitorPart
from api.uploads import keep
from fluxfarm.campaigns.placements import PRESETS
from fluxfarm.campaigns.record import Plan
from fluxfarm.campaigns.rows import LINES, rows_in
from fluxfarm.campaigns.source import invalid, read_source, with_rows
from fluxfarm.campaigns.spec import Spec
from fluxfarm.campaigns.starter import ROWS, SPEC
from fluxfarm.catalog import MODELS
from fluxfarm.errors import BadRequest, FluxfarmError, InvalidCampaign, Issue
from fluxfarm.scopes import Scope

MOST_FILES: Final = 100
MOST_FIELDS: Final = 100
SOURCES: Final = (".yaml", ".yml", ".json")
TABLES: Final = (".csv", *LINES)
MOST_NAME: Final = 200  #: characters, as of a reference
PICTURES: Final = (".png", ".jpg", ".jpeg", ".webp")
DAMAGED: Final = f"The form cannot be read: it is damaged, or has more than {MOST_FILES} files."
STARTER_ROWS: Final = "products.csv"  #: as the starter's specification calls them

router = APIRouter()


@dataclass(slots=True)
class Draft:
    """What the page holds: it comes back with every answer, so that nothing must be dropped twice."""

    source: str = SPEC
    rows_name: str = STARTER_ROWS
    rows: str = ROWS
    files: dict[str, str] = field(default_factory=dict)  #: names of pictures, and the ids that they are kept under
    fields: Fields | None = None  #: the form, until somebody writes or drops a specification

    def write(self) -> None:
        """Let the form, if it is in use, make the specification.

        Raises:
            BadRequest: there is neither.
        """
        if self.fields is not None:
            self.rows_name = name_of_rows(self.rows_name, self.rows)
            self.source = self.fields.document(self.rows_name, self.rows, list(self.files))
        elif not self.source.strip():
            raise BadRequest("There is no specification: write one, or drop its .yaml here.")

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
            spec = with_rows(spec, rows_in(self.rows_name, self.rows))
        return spec.model_copy(update={"files": spec.files | self.files})


@router.get("/new-campaign")
def new(
    request: Request, visitor: VisitorPart, view: Annotated[Literal["form", "document"], Query(alias="as")] = "form"
) -> Response:
    """A small campaign to change, in fields or as the document that they make."""
    return _page(request, visitor, Draft(fields=Fields() if view == "form" else None))


@router.post("/campaigns")
async def plan_or_run(request: Request, visitor: VisitorPart) -> Response:
    """Read what was filled in and dropped; show the plan or the document, or make the campaign that was planned."""
    await run_in_threadpool(_enter, visitor)
    limit = visitor.farm.settings.campaign_limit
    form = await parse_form(request, limit, DAMAGED, files=MOST_FILES, fields=MOST_FIELDS, field_bytes=limit)
    draft = Draft()
    try:
        draft = _typed(form)
        await _take_files(visitor, form, draft)
        await run_in_threadpool(draft.write)
        if form.get("do") == "write":
            return await run_in_threadpool(_page, request, visitor, replace(draft, fields=None))
        if form.get("do") == "run":
            name = await to_thread.run_sync(_run, visitor, draft, limiter=visitor.farm.pictures)
            return pages.go(f"/campaigns/{name}")
        plan = await to_thread.run_sync(_plan, visitor, draft, limiter=visitor.farm.pictures)
    except FluxfarmError as error:
        return await run_in_threadpool(_page, request, visitor, draft, error=error)
    finally:
        await form.close()
    return await run_in_threadpool(_page, request, visitor, draft, plan=plan)


def _enter(visitor: Visitor) -> None:
    with visitor.looking(Scope.CAMPAIGNS):
        pass


def _typed(form: FormData) -> Draft:
    """The texts of the form.

    Raises:
        BadRequest: the pictures' ids are not as the page sent them.
    """
    draft = Draft(source="", rows="", fields=Fields.of(form) if form.get("view") == "form" else None)
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
    without = form.getlist("without")
    draft.files = {name: kept for name, kept in files.items() if name not in without}
    return draft


async def _take_files(visitor: Visitor, form: FormData, draft: Draft) -> None:
    """Put each dropped file in its place, by its ending; a specification takes the form's.

    Raises:
        BadRequest: a file that no campaign can use.
    """
    for file in form.getlist("dropped"):
        if not isinstance(file, UploadFile) or not file.filename:
            continue
        stem, _, last = file.filename.rpartition("/")[2].rpartition(".")
        ending = f".{last.lower()[:8]}"
        name = f"{stem[: MOST_NAME - len(ending)]}.{last[:8]}"
        if ending in PICTURES:
            row = await keep(visitor.farm, visitor.secret, await file.read(), name)
            draft.files[name] = row.id
        elif ending in SOURCES:
            draft.source, draft.fields = _text(name, await file.read()), None
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


def _page(
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
            at="/new-campaign" if draft.fields else "/new-campaign?as=document",
            draft=draft,
            files=json.dumps(draft.files),
            plan=plan,
            error=error,
            issues=_issues(draft, error),
            limit=visitor.farm.settings.campaign_limit,
            models=MODELS,
            presets=PRESETS,
        )


def _issues(draft: Draft, error: FluxfarmError | None) -> list[Issue]:
    """What is wrong with the campaign; lines of a document that nobody wrote are left out."""
    if not isinstance(error, InvalidCampaign):
        return []
    if draft.fields is None:
        return list(error.issues)
    return [one if one.is_in_rows else replace(one, line=None, column=None) for one in error.issues]
