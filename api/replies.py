"""The outermost layer: a request id and safe headers on every reply, HEAD for every GET, and no error unanswered."""

from __future__ import annotations

import random
import re
import time
from contextlib import suppress
from typing import Any, Final

import structlog
from fastapi import Response
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import error_response
from api.limits import Standing
from api.metrics import NO_ROUTE
from fluxfarm.errors import InternalError, NotFound
from fluxfarm.tracing import OFF, Span

_SAFE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: unless a reply has its own
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)

#: seeded by the system; asking the system each time would hand the interpreter over to another thread
_request_ids: Final = random.Random()  # noqa: S311 - no secret

log = structlog.get_logger()


class _HeadDoneError(OSError):
    """Ends a handler whose reply to HEAD is complete."""


def reply(model: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A model as JSON under the names of its aliases; FastAPI would check it a second time."""
    return Response(model.model_dump_json(by_alias=True), status, headers, media_type="application/json")


class Replies:
    """Wraps the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; the id is in ``scope["state"]`` and in every line that is logged meanwhile."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _SAFE_ID.fullmatch(given) else _request_ids.randbytes(9).hex()
        inner: dict[str, Any] = {**scope, "state": {**scope.get("state", {}), "request_id": request_id}}
        outgoing = _Outgoing(send, inner["state"], head=scope["method"] == "HEAD")
        if outgoing.head:
            inner["method"] = "GET"
        started = time.perf_counter()
        span = _begin(scope)
        with structlog.contextvars.bound_contextvars(request_id=request_id), span.inside():
            try:
                await self._answer(inner, receive, outgoing.send)
            except (ClientDisconnect, _HeadDoneError):
                return
            except Exception:
                log.exception("request_failed", method=scope["method"], path=scope["path"])
                if outgoing.started:
                    raise
                error = InternalError("The farm made a mistake; quote the request id to its operator.")
                with suppress(_HeadDoneError):
                    await error_response(error, inner)(inner, receive, outgoing.send)
            finally:
                _close(inner, outgoing.status, time.perf_counter() - started, span)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "\0" in scope["path"]:  # no name holds it, and the database takes no text with it
            await error_response(NotFound("There is nothing of that name."), scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _begin(scope: Scope) -> Span:
    """The span of a call that may make a job; its name says only the method until the route is known."""
    farm = getattr(scope["app"].state, "farm", None)
    if farm is None or scope["method"] != "POST":
        return OFF
    span: Span = farm.tracing.begin("POST", "SERVER", parent=Headers(scope=scope).get("traceparent"))
    return span


def _close(scope: Scope, status: int, seconds: float, span: Span) -> None:
    farm = getattr(scope["app"].state, "farm", None)
    if farm is None:
        return
    if (open_call := scope["state"].get("open_call")) is not None:
        farm.open_calls.leave(open_call)
    if status:  # 0: the caller went away before a reply began
        route = getattr(scope.get("route"), "path", NO_ROUTE)
        farm.metrics.count(scope["method"], route, status, seconds)
        span.answered(scope["method"], route, status)
    span.end()


class _Outgoing:
    """Adds the headers, and drops the body of a reply to HEAD."""

    def __init__(self, send: Send, state: dict[str, Any], *, head: bool) -> None:
        self._send, self._state = send, state
        self.head = head
        self.started = False
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self._state["request_id"]
            standing: Standing | None = self._state.get("standing")
            if standing is not None:
                headers.update(standing.headers())
            there = {name for name, _ in headers.raw}
            headers.raw.extend(pair for pair in _HEADERS if pair[0] not in there)
        elif self.head and message["type"] == "http.response.body":
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            raise _HeadDoneError
        await self._send(message)
