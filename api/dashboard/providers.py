"""Who renders, how well and for how much; and the models, what each provider makes of their parameters."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Form, Query, Request, Response

from api.dashboard import pages
from api.dashboard.visitors import VisitorPart
from api.routes.models import detail, model, served
from api.routes.providers import Window, board, read_tried, reset_provider
from fluxfarm.catalog import MODELS, find_model

WINDOWS: Final = (("24h", "Last day"), ("30d", "Last 30 days"))
MOST: Final = 4  #: models side by side

router = APIRouter()


@router.get("/providers")
def providers(request: Request, visitor: VisitorPart, window: Annotated[Window, Query()] = "24h") -> Response:
    """The leaderboard."""
    with visitor.looking() as looking:
        tried = read_tried(looking.session, looking.caller, window)
    rows = board(visitor.farm, tried).data
    return pages.page(
        request,
        "providers.html",
        looking,
        rows=rows,
        window=window,
        windows=WINDOWS,
        slowest=max((row.p95 or 0 for row in rows), default=0),
        enabled=visitor.farm.remotes.enabled,
    )


@router.post("/providers/reset")
def reset(visitor: VisitorPart, provider: Annotated[str, Form(max_length=40)]) -> Response:
    """Close the breaker of the farm's account at a provider."""
    reset_provider(visitor.farm, visitor.secret, provider)
    return pages.go("/providers")


@router.get("/models")
def models(request: Request, visitor: VisitorPart) -> Response:
    """Every model of the catalogue, those that render now first."""
    with visitor.looking() as looking:
        queues = served(looking.session)
        every = [model(visitor.farm, profile, queues) for profile in MODELS]
        found = sorted(every, key=lambda one: (not one.ready, not one.local))
        return pages.page(request, "models.html", looking, models=found, most=MOST)


@router.get("/models/compare")
def compare(
    request: Request,
    visitor: VisitorPart,
    slugs: Annotated[list[str], Query(alias="model", max_length=40)] = [],  # noqa: B006
) -> Response:
    """Some models side by side, with what each provider does with each parameter."""
    chosen = list(dict.fromkeys(slugs))[:MOST]
    with visitor.looking() as looking:
        queues = served(looking.session)
        details = [detail(visitor.farm, find_model(slug), queues) for slug in chosen]
        return pages.page(request, "models_compare.html", looking, models=details)
