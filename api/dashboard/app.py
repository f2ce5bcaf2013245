"""The dashboard as an application of its own below ``/dashboard``: its errors are pages, no description names it."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, FastAPI
from fastapi.responses import RedirectResponse

from api.dashboard import (
    board,
    campaigns,
    design,
    faults,
    gallery,
    jobs,
    login,
    overview,
    pictures,
    planning,
    playground,
    providers,
    sessions,
    statics,
    usage,
)
from api.dashboard.door import Door
from api.dashboard.kept import Kept

ROUTERS: Final = (
    login,
    overview,
    playground,
    jobs,
    gallery,
    campaigns,
    planning,
    board,
    providers,
    usage,
    design,
    pictures,
    statics,
)
front: Final = APIRouter(include_in_schema=False)


@front.get("/")
@front.get(sessions.PATH)
async def enter() -> RedirectResponse:
    """Whoever types the farm's address wants to see it."""
    return RedirectResponse(f"{sessions.PATH}/", 307)


def install(app: FastAPI) -> None:
    """Put the dashboard on the application, whose parts it shares."""
    inside = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    inside.state = app.state
    app.state.glances = overview.Glances()
    app.state.records = Kept(board.COUNTED)
    inside.router.routes.extend(route for module in ROUTERS for route in module.router.routes)
    faults.install(inside)
    app.router.routes.extend(front.routes)
    app.mount(sessions.PATH, inside)
    app.add_middleware(Door)
