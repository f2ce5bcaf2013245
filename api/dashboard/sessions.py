"""A session of the dashboard: the API key, sealed in a cookie that only the farm can open.

Nothing is kept on the farm. Each page authenticates the key anew, so a session ends with its key: revoked, expired,
rotated and past its grace. ``docs/decisions/0015`` has the reasons.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import Final

from fastapi import Response
from starlette.datastructures import MutableHeaders
from starlette.requests import cookie_parser

from api.farm import Farm
from fluxfarm.errors import FluxfarmError
from storage.sealing import Sealer

COOKIE: Final = "fluxfarm_session"
WRITTEN: Final = "fluxfarm_written"  #: there for as long as a standby may be behind what its holder has done
PATH: Final = "/dashboard"
LIFE: Final = 12 * 3600  #: seconds
OVER: Final = "The session is over; log in again, what you typed stays in the page."
SAFE: Final = ("GET", "HEAD", "OPTIONS")  #: methods that change nothing
PURPOSE: Final = "dashboard-1"  #: other things are sealed with the same key


@dataclass(frozen=True, slots=True)
class Visit:
    """Who is logged in: the key's text, and when the session ends (seconds since 1970)."""

    secret: str
    until: int


def begin(farm: Farm, response: Response, secret: str) -> None:
    """Log the holder of the key in."""
    said = {"for": PURPOSE, "secret": secret, "until": int(time.time()) + LIFE}
    response.set_cookie(
        COOKIE,
        farm.sealer.seal(json.dumps(said)),
        max_age=LIFE,
        path=PATH,
        secure=farm.settings.base_url.startswith("https:"),
        httponly=True,
        samesite="strict",
    )


def end(response: Response) -> None:
    """Log out."""
    response.delete_cookie(COOKIE, path=PATH, httponly=True, samesite="strict")


def note_write(farm: Farm, headers: MutableHeaders) -> None:
    """Let the browser remember for a while that something was changed; without a standby nobody needs to know."""
    if farm.settings.replica_url.get_secret_value():
        age = math.ceil(farm.settings.replica_lag) + 1
        headers.append("set-cookie", f"{WRITTEN}=1; Max-Age={age}; Path={PATH}; HttpOnly; SameSite=strict")


def has_written(cookies: str) -> bool:
    """Whether the ``Cookie`` header says so; it may lie, which only makes a list newer."""
    return WRITTEN in cookie_parser(cookies)


def find(sealer: Sealer, cookies: str) -> Visit | None:
    """The session in a ``Cookie`` header; None: there is none, it is over, or nobody here sealed it."""
    sealed = cookie_parser(cookies).get(COOKIE)
    if not sealed:
        return None
    try:
        said = json.loads(sealer.open(sealed))
        found = Visit(said["secret"], said["until"]) if said["for"] == PURPOSE else None
    except (FluxfarmError, ValueError, KeyError, TypeError):
        return None
    return found if found is not None and found.until > time.time() else None
