"""The review board: every file of a campaign in its row and placement, judged by mouse or by keys."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.campaign_replies import campaign_record
from api.dashboard import live, pages
from api.dashboard.kept import Kept
from api.dashboard.visitors import FollowerPart, Looking, VisitorPart
from api.routes import campaign_reviews
from fluxfarm.campaigns.record import CampaignRecord
from fluxfarm.errors import InvalidField
from fluxfarm.jobs import JobState
from storage.campaign_records import Campaign
from storage.repository import campaign_assets, campaigns
from storage.repository.campaign_assets import Listed

PAGE: Final = 120  #: files
NUMBERS: Final = r"^([0-9]{1,9}(,[0-9]{1,9})*)?$"  #: of files
COUNTED: Final = 2.0  #: seconds that the counts of a campaign are shown again, however many look
VERDICTS: Final = ("none", "approve", "reject", "regenerate")
SAID: Final = ("approve", "reject", "regenerate", "withdraw", "comment")

router = APIRouter(prefix="/campaigns/{name}")


class Wanted(BaseModel):
    """Which files; an empty field is any."""

    model_config = ConfigDict(extra="ignore")

    status: str = Field("", max_length=16)
    verdict: str = Field("", max_length=16)
    part: str = Field("", max_length=16)
    after: int = Field(-1, ge=-1, le=2**31 - 1)

    def link(self, **changes: object) -> str:
        """The address of this board, with changes."""
        asked = {"status": self.status, "verdict": self.verdict, "part": self.part} | changes
        return urlencode({name: value for name, value in asked.items() if value not in ("", None)})


@dataclass(slots=True)
class Row:
    """Files of one row of the data, and one locale, by placement."""

    row: int
    key: str
    locale: str
    cells: dict[str, list[Listed]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Board:
    """What is shown; ``part`` is drafts or masters."""

    record: CampaignRecord
    part: str
    places: list[str]
    rows: list[Row]
    files: list[Listed]


@router.get("")
def show(request: Request, visitor: VisitorPart, name: str, wanted: Annotated[Wanted, Query()]) -> Response:
    """The campaign with its board."""
    with visitor.looking() as looking:
        found = campaigns.read(looking.session, looking.caller.tenant_id, name)
        board = _board(looking, found, wanted)
        request.app.state.records.put(found.id, board.record)
        return pages.page(
            request,
            "campaign.html",
            looking,
            board=board,
            campaign=board.record,
            wanted=wanted,
            following=board.files[-1].n if len(board.files) == PAGE else None,
        )


@router.get("/events")
async def follow(
    request: Request,
    visitor: FollowerPart,
    name: str,
    shown: Annotated[str, Query(max_length=PAGE * 10, pattern=NUMBERS)] = "",
) -> Response:
    """The head, and the cells that are shown, as they change: also those that a filter would not find any more."""
    records: Kept[CampaignRecord] = request.app.state.records
    numbers = [int(one) for one in shown.split(",") if one]

    def read() -> dict[str, str]:
        with visitor.looking() as looking:
            found = campaigns.read(looking.session, looking.caller.tenant_id, name)
            record = records.read(found.id, lambda: campaign_record(looking.session, found))
            files = campaign_assets.numbered(looking.session, found.id, numbers)
            scopes = tuple(looking.caller.scopes)
        cells = {f"cell-{one.n}": pages.render("campaign_cell.html", one=one) for one in files}
        head = {
            f"campaign-{part}": pages.render(f"campaign_{part}.html", campaign=record, scopes=scopes)
            for part in ("head", "actions")
        }
        return head | cells

    return await live.parts(read)


@router.post("/review")
def review(
    request: Request,
    visitor: VisitorPart,
    name: str,
    verdict: Annotated[str, Form(max_length=16)],
    files: Annotated[list[str], Form(max_length=PAGE)] = [],  # noqa: B006 - FastAPI copies it
    back: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """What the board does without a script: one verdict on all that are ticked."""
    if verdict not in SAID or not files:
        raise InvalidField("Tick a picture, then say what is to become of it.")
    said = json.dumps({"files": list(dict.fromkeys(files)), "verdict": verdict}).encode()
    campaign_reviews.review(visitor.farm, visitor.secret, visitor.creation(request), name, said)
    return pages.go(f"/campaigns/{name}?{back}" if back.isprintable() else f"/campaigns/{name}")


def _board(looking: Looking, campaign: Campaign, wanted: Wanted) -> Board:
    record = campaign_record(looking.session, campaign)
    part = wanted.part or ("masters" if record.drafts is None or record.files.total else "drafts")
    asked: dict[str, Any] = {
        "status": wanted.status if wanted.status in set(JobState) else None,
        "verdict": wanted.verdict if wanted.verdict in VERDICTS else None,
        "drafts": None if record.drafts is None else part == "drafts",
    }
    files = campaign_assets.page(looking.session, campaign.id, after=wanted.after, limit=PAGE, **asked)
    return Board(record, part, *_rows(files), files)


def _rows(files: Sequence[Listed]) -> tuple[list[str], list[Row]]:
    places = list(dict.fromkeys(one.placement for one in files))
    rows: dict[tuple[int, str], Row] = {}
    for one in files:
        row = rows.setdefault((one.row, one.locale), Row(one.row, one.key, one.locale))
        row.cells.setdefault(one.placement, []).append(one)
    return places, list(rows.values())
