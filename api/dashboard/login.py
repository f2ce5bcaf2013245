"""Log-in by API key, and log-out."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Form, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.dashboard import pages, sessions
from api.farm import Farm, FarmPart
from fluxfarm.errors import Unauthorized
from storage.keys import digest, is_well_formed
from storage.repository import tenants

WRONG: Final = "This key is wrong, expired or revoked. Copy it whole, from ff_live_ to the end; it is not stored here."
START: Final = "/"

router = APIRouter()

Next = Annotated[str, Form(max_length=2_000)]


@router.get("/login")
def login_form(request: Request, next: str = START) -> Response:  # noqa: A002 - its name in the address
    """Ask for the key."""
    return pages.page(request, "login.html", next=next, error="")


@router.post("/login")
async def login(
    request: Request,
    farm: FarmPart,
    key: Annotated[str, Form(max_length=200)] = "",
    next: Next = START,  # noqa: A002
) -> Response:
    """Take the key, and go where the visitor wanted to."""
    secret = key.strip()
    standing = await farm.rates.spend(digest(secret)) if is_well_formed(secret) else None
    if standing is not None:
        standing.check()
    try:
        await run_in_threadpool(_check, farm, secret)
    except Unauthorized:
        return pages.page(request, "login.html", status=401, next=next, error=WRONG)
    response = pages.go(_inside(next))
    sessions.begin(farm, response, secret)
    return response


@router.post("/logout")
async def logout() -> Response:
    """Forget the session, and what the browser kept of its pages."""
    response = pages.go("/login")
    sessions.end(response)
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


def _check(farm: Farm, secret: str) -> None:
    with farm.database.transaction() as session:
        tenants.authenticate(session, secret)


def _inside(path: str) -> str:
    """Only to pages of the dashboard: never to another host."""
    safe = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if safe else START
