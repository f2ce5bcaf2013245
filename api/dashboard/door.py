"""What stands before the dashboard: no form from elsewhere, no body without a limit, the native API for its scripts.

A script calls ``/dashboard/v1/…`` with the session's cookie; the call goes on to ``/v1/…`` with the session's key, so
that every limit, check and error is the native API's own. ``/v1`` itself never looks at a cookie.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.bodies import too_large
from api.dashboard import faults, sessions
from api.errors import error_response
from api.farm import Farm
from fluxfarm.errors import BadRequest, FluxfarmError, Forbidden, Unauthorized

INSIDE: Final = f"{sessions.PATH}/v1/"
CREDENTIALS: Final = (b"authorization", b"api-key", b"cookie")
FORM_LIMIT: Final = 64 * 1024  #: bytes of a form; the native API has limits of its own
PLANNED: Final = f"{sessions.PATH}/campaigns"  #: the form with whole files


class Door:
    """Wraps the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; any but the dashboard's pass as they are."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith(f"{sessions.PATH}/"):
            await self._app(scope, receive, send)
            return
        farm: Farm = scope["app"].state.farm
        headers = Headers(scope=scope)
        is_native = path.startswith(INSIDE)
        try:
            if scope["method"] not in sessions.SAFE:
                check_origin(farm, headers)
                if not is_native:
                    check_length(farm, path, headers)
            inner = _native(farm, scope, headers) if is_native else scope
        except FluxfarmError as error:
            native = {**scope, "path": path.removeprefix(sessions.PATH)}
            refusal = error_response(error, native) if is_native else faults.shown(Request(scope), error)
            await refusal(scope, receive, send)
            return
        answer = send if scope["method"] in sessions.SAFE else _noting(farm, send)
        try:
            await self._app(inner, receive, answer)
        finally:
            scope.setdefault("route", inner.get("route"))  # for the metrics, which are counted outside


def _noting(farm: Farm, send: Send) -> Send:
    async def note(message: Message) -> None:
        if message["type"] == "http.response.start":
            sessions.note_write(farm, MutableHeaders(scope=message))
        await send(message)

    return note


def check_origin(farm: Farm, headers: Headers) -> None:
    """Let only the dashboard's own pages write.

    Raises:
        Forbidden: the browser says that another site sent this, or does not say who did.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin", "")
    ours = {headers.get("host", ""), urlsplit(farm.settings.base_url).netloc}
    if site == "same-origin" or (site is None and urlsplit(origin).netloc in ours - {""}):
        return
    raise Forbidden("This was not sent by a page of this dashboard; open the page here and do it again.")


def check_length(farm: Farm, path: str, headers: Headers) -> None:
    """Refuse a form by what it says of its length, before a byte of it is read.

    Raises:
        BadRequest: it does not say; browsers do.
        PayloadTooLarge: over the limit.
    """
    declared = headers.get("content-length", "")
    if not declared.isdecimal() or len(declared) > 18 or "transfer-encoding" in headers:  # noqa: PLR2004 - below 2^63
        raise BadRequest("The form does not tell its length; send it from the page.")
    limit = farm.settings.campaign_limit if path == PLANNED else FORM_LIMIT
    if int(declared) > limit:
        raise too_large(limit)


def _native(farm: Farm, scope: Scope, headers: Headers) -> Scope:
    visit = sessions.find(farm.sealer, headers.get("cookie", ""))
    if visit is None:
        raise Unauthorized(sessions.OVER)
    kept = [(name, value) for name, value in scope["headers"] if name not in CREDENTIALS]
    return {
        **scope,
        "path": scope["path"].removeprefix(sessions.PATH),
        "raw_path": scope["raw_path"].removeprefix(sessions.PATH.encode()),
        "headers": [*kept, (b"authorization", f"Bearer {visit.secret}".encode())],
    }
