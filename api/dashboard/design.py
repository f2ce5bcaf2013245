"""The design system: every colour, size and component in use, for whoever adds a page."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from api.dashboard import pages, plots
from api.dashboard.visitors import VisitorPart

COLOURS: Final = (
    ("ground", "behind everything"),
    ("panel", "cards and fields"),
    ("raised", "heads of tables"),
    ("line", "quiet borders"),
    ("ink", "text"),
    ("muted", "second text, AA on all grounds"),
    ("accent", "links, where you are, bars"),
    ("strong", "the one main button"),
    ("good", "success, approved"),
    ("run", "running"),
    ("wait", "waiting, warnings"),
    ("bad", "failed, rejected, danger"),
)

router = APIRouter()


@router.get("/design")
def show(request: Request, visitor: VisitorPart) -> Response:
    """All of it on one page."""
    sample = plots.bars([3.0, 5.0, 2.0, 8.0, 6.0], ["3", "5", "2", "8", "6"], ["then", "now"], "", "An example.")
    with visitor.looking() as looking:
        return pages.page(request, "design.html", looking, colours=COLOURS, sample=sample)
