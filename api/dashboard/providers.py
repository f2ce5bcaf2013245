"""Who renders, how well and for how much; and the models, what each provider makes of their parameters."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Form, Query, Request, Response

from api.dashboard import pages
from api.dashboard.visitors import VisitorPart
from api.routes.models import ModelDetail, ModelPage, list_models, read_model
from api.routes.providers import ProviderPage, list_providers, reset_provider

WINDOWS: Final = (("24h", "Last day"), ("30d", "Last 30 days"))
MOST: Final = 4  #: models side by side

router = APIRouter()


@router.get("/providers")
def providers(
    request: Request, visitor: VisitorPart, window: Annotated[Literal["24h", "30d"], Query()] = "24h"
) -> Response:
    """The leaderboard."""
    told = ProviderPage.model_validate_json(bytes(list_providers(visitor.farm, visitor.secret, window).body))
    with visitor.looking() as looking:
        return pages.page(
            request,
            "providers.html",
            looking,
            rows=told.data,
            window=window,
            windows=WINDOWS,
            slowest=max((row.p95 or 0 for row in told.data), default=0),
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
    told = ModelPage.model_validate_json(bytes(list_models(visitor.farm, visitor.secret).body))
    found = sorted(told.data, key=lambda one: (not one.ready, not one.local))
    with visitor.looking() as looking:
        return pages.page(request, "models.html", looking, models=found, most=MOST)


@router.get("/models/compare")
def compare(
    request: Request,
    visitor: VisitorPart,
    model: Annotated[list[str], Query(max_length=40)] = [],  # noqa: B006
) -> Response:
    """Some models side by side, with what each provider does with each parameter."""
    chosen = list(dict.fromkeys(model))[:MOST]
    details = [
        ModelDetail.model_validate_json(bytes(read_model(visitor.farm, visitor.secret, slug).body)) for slug in chosen
    ]
    with visitor.looking() as looking:
        return pages.page(request, "models_compare.html", looking, models=details)
