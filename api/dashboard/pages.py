"""How a page is made: a template, the visitor, and headers that let the browser do little."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from api.dashboard import sessions, statics, words
from api.dashboard.visitors import Looking
from api.farm import Farm
from fluxfarm import __version__
from fluxfarm.jobs import JobState, Lane
from fluxfarm.scopes import Scope
from storage.objects import object_key
from storage.objects_local import LocalStore

NOBODY: Final = UUID(int=0)
#: the pages and the words beside their icons
PLACES: Final = (
    ("/", "Overview", "overview"),
    ("/playground", "Playground", "playground"),
    ("/jobs", "Jobs", "jobs"),
    ("/gallery", "Gallery", "gallery"),
    ("/campaigns", "Campaigns", "campaigns"),
    ("/providers", "Providers", "providers"),
    ("/models", "Models", "models"),
    ("/usage", "Keys and usage", "usage"),
)

environment: Final = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,  # every text is a text, whatever its template is called
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
environment.filters.update(words.FILTERS)
environment.globals.update(
    root=sessions.PATH,
    static=f"{sessions.PATH}/static/{statics.VERSION}",
    places=PLACES,
    version=__version__,
    states=tuple(JobState),
    lanes=tuple(Lane),
    Scope=Scope,
)


def render(template: str, **context: Any) -> str:
    """A template, or a part of a page, as text."""
    return environment.get_template(template).render(context)


def page(
    request: Request,
    template: str,
    looking: Looking | None = None,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    at: str | None = None,
    **context: Any,
) -> Response:
    """A page; ``looking`` is None where nobody is logged in, ``at`` is where it stands if it may answer a form."""
    farm: Farm = request.app.state.farm
    shown = {
        "tenant": None if looking is None else looking.tenant,
        "scopes": () if looking is None else tuple(looking.caller.scopes),
        "here": request.url.path,
        "at": at,
    }
    return HTMLResponse(render(template, **shown, **context), status, policy(farm) | (headers or {}))


def policy(farm: Farm) -> dict[str, str]:
    """What a page may load: its own files, and pictures of the object store."""
    pictures = " ".join(["'self'", "data:", *picture_origins(farm)])
    rules = (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        f"img-src {pictures}",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
    return {"Content-Security-Policy": "; ".join(rules)}


def picture_origins(farm: Farm) -> list[str]:
    """Where the object store's links lead, unless the farm serves them itself."""
    if isinstance(farm.store, LocalStore):
        return []
    link = farm.store.presign(
        object_key(NOBODY, NOBODY, 1, 0, "webp"), ttl=1, content_type="image/webp", filename=None, inline=True
    )
    found = urlsplit(link)
    return [f"{found.scheme}://{found.netloc}"]


def go(path: str) -> RedirectResponse:
    """To another page of the dashboard, after a form."""
    return RedirectResponse(f"{sessions.PATH}{path}", 303)
