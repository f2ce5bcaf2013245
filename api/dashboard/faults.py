"""How an error looks in a page: a sentence that says what to do; a session that is over leads to the log-in."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.exceptions import HTTPException

from api.dashboard import pages, sessions
from fluxfarm.errors import BadRequest, FluxfarmError, Forbidden, InternalError, NotFound, Unauthorized

#: a link from elsewhere comes without the cookie (SameSite=Strict); loaded once more by itself, it has it
ONCE_MORE: Final = '<!doctype html><meta http-equiv="refresh" content="0"><title>Fluxfarm</title>'
HINTS: Final = {
    404: "It may have been erased, by you or by the rules of retention, or it belongs to another tenant.",
    409: "Somebody or something was faster; load the page again to see how it stands.",
    413: "Make it smaller, then try again.",
    429: "Wait until the minute is over, then load the page again.",
    503: "A part of the farm is down. Jobs that were accepted are safe; load the page again in a moment.",
}


def install(app: FastAPI) -> None:
    """Let every error of the dashboard be a page."""
    app.add_exception_handler(FluxfarmError, _fluxfarm_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


async def _fluxfarm_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FluxfarmError)
    return shown(request, error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if any(one["loc"][0] == "path" for one in error.errors()):
        return shown(request, NotFound("There is nothing of that name."))
    return shown(request, BadRequest("The address or the form of the page cannot be read; start again from the menu."))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code in (404, 405):
        return shown(request, NotFound("There is no such page."))
    if error.status_code < InternalError.status:
        return shown(request, BadRequest(f"The form cannot be read: {error.detail}"))
    return shown(request, InternalError("The farm made a mistake."))


async def _unexpected(request: Request, _error: Exception) -> Response:
    """The page; the error itself goes on to where it is logged."""
    return shown(request, InternalError("The farm made a mistake; quote the request id to its operator."))


def shown(request: Request, error: FluxfarmError) -> Response:
    """The page of an error."""
    if isinstance(error, Unauthorized):
        return _to_login(request) if request.method in sessions.SAFE else _over(request)
    wait = {} if error.retry_after is None else {"Retry-After": str(max(1, round(error.retry_after)))}
    return pages.page(
        request,
        "fault.html",
        status=error.status,
        headers=wait,
        error=error,
        hint=HINTS.get(error.status, ""),
        is_scope=isinstance(error, Forbidden),
        request_id=getattr(request.state, "request_id", ""),
    )


def _over(request: Request) -> Response:
    """A form that came too late: nobody is led away from what was typed."""
    answer = pages.page(request, "over.html", status=Unauthorized.status)
    sessions.end(answer)
    return answer


def _to_login(request: Request) -> Response:
    if request.headers.get("sec-fetch-site") == "cross-site":
        return HTMLResponse(ONCE_MORE, headers={"Cache-Control": "no-store"})
    asked = request.url.path.removeprefix(sessions.PATH)
    query = f"?{request.url.query}" if request.url.query else ""
    target = f"?next={quote(asked + query, safe='')}" if asked.strip("/") else ""
    answer = RedirectResponse(f"{sessions.PATH}/login{target}", 303)
    sessions.end(answer)
    return answer
