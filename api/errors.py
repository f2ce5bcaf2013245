"""How an error leaves the API: in the words of its path's dialect, never with what was sent or what is inside."""

from __future__ import annotations

import json
import math
from typing import Any, Final, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Scope

from api.dialects import (
    cloudflare_errors,
    fal_errors,
    native_errors,
    one_min_errors,
    openai_errors,
    replicate_errors,
)
from api.dialects.native_errors import PROBLEM_JSON
from api.dialects.wording import Wording
from api.strict import Complaints, problem_of
from fluxfarm.errors import (
    BadRequest,
    FluxfarmError,
    InternalError,
    MethodNotAllowed,
    NotFound,
    Unauthorized,
    Unavailable,
)

#: who words the errors below a prefix, unknown paths and refused methods included
WORDINGS: Final[tuple[tuple[str, Wording], ...]] = (
    ("/openai/v1/models", openai_errors.shared_reply),
    ("/openai", openai_errors.error_reply),
    ("/v1/images", openai_errors.error_reply),
    ("/v1/models", openai_errors.shared_reply),
    ("/v1/files", openai_errors.error_reply),
    ("/v1/batches", openai_errors.error_reply),
    ("/api", one_min_errors.error_reply),
    ("/client/v4", cloudflare_errors.error_reply),
    ("/fal", fal_errors.error_reply),
    ("/replicate", replicate_errors.error_reply),
)
MEANINGS: Final = {
    400: "What was sent cannot be done as it stands; `code` says why, `param` names the field",
    401: "No API key, or a wrong, expired or revoked one",
    402: "The estimate is more than a budget has left; nothing was spent",
    403: "The key lacks the scope, or its tenant may not; `code` says which",
    404: "No such thing for this key's tenant",
    408: "The job is not over yet and goes on, or it was stopped; `code` says which",
    409: "The state of a job does not allow it, or another job stands in the way; `code` says why",
    410: "What it needs was erased, as the time that it is kept for was over",
    413: "The body is over the limit",
    415: "The content type is not one that this call takes",
    416: "The range names bytes that do not exist",
    422: "The `Idempotency-Key` came before, with another call",
    429: "A limit is reached, or the farm has no room; try again after `Retry-After` seconds",
    499: "The job was stopped",
    500: "A fault of the farm; quote the request id",
    503: "A part of the farm is down; try again after `Retry-After` seconds",
    504: "The job is not over yet; it goes on",
}


def error_response(error: FluxfarmError, scope: Scope, headers: dict[str, str] | None = None) -> Response:
    """The reply to an error in the words of the path's dialect.

    ``Retry-After`` (whole seconds), ``WWW-Authenticate`` and the caller's own ``headers`` are added for all of them.
    """
    worded = wording_of(scope["path"])(error, scope.get("state", {}).get("request_id", "unknown"))
    more = {**worded.headers, **(headers or {})}
    wait = error.retry_after if error.retry_after is not None else (2.0 if isinstance(error, Unavailable) else None)
    if wait is not None:
        more["Retry-After"] = str(max(1, math.ceil(wait)))
    if error.status == 401:  # noqa: PLR2004
        more["WWW-Authenticate"] = 'Bearer realm="fluxfarm"'
    # ASCII: whatever text got into a message, it can be sent.
    return Response(json.dumps(worded.content), worded.status, more, media_type=worded.media_type)


def wording_of(path: str) -> Wording:
    """Who words the errors of a path: the dialect of the first prefix that it lies under, else the farm's own form."""
    return next(
        (wording for prefix, wording in WORDINGS if path == prefix or path.startswith(f"{prefix}/")),
        native_errors.error_reply,
    )


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of these statuses, and of those that every call can give; with a key 429 is one of them."""
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    return {status: {"description": MEANINGS[status], "content": content} for status in _with_usual(statuses)}


def errors_as(model: type[BaseModel], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """The same for a dialect, whose errors all have the form of ``model``."""
    return {status: {"description": MEANINGS[status], "model": model} for status in _with_usual(statuses)}


def _with_usual(statuses: tuple[int, ...]) -> tuple[int, ...]:
    return (*statuses, *((429,) if Unauthorized.status in statuses else ()), 500, 503)


async def _fluxfarm_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FluxfarmError)
    return error_response(error, request.scope)


async def _invalid_parameters(request: Request, error: Exception) -> Response:
    complaints = cast("Complaints", cast("RequestValidationError", error).errors())
    if any(complaint["loc"][0] == "path" for complaint in complaints):
        if request.method not in request.app.state.methods.of(request.url.path):  # another route took the last name
            return await _http_exception(request, HTTPException(MethodNotAllowed.status))
        return error_response(NotFound("There is nothing of that name."), request.scope)
    return error_response(problem_of([{**c, "loc": c["loc"][1:]} for c in complaints]), request.scope)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == NotFound.status:
        return error_response(NotFound("There is no such path; /openapi.json lists them."), request.scope)
    if error.status_code == MethodNotAllowed.status:
        allowed = ", ".join(sorted(request.app.state.methods.of(request.url.path)))
        message = f"{request.method[:20]} does not go here; allowed: {allowed}."
        return error_response(MethodNotAllowed(message), request.scope, {"Allow": allowed})
    if error.status_code < 500:  # noqa: PLR2004
        return error_response(BadRequest("The request cannot be read."), request.scope)
    return error_response(InternalError("The farm made a mistake."), request.scope)


def install(app: FastAPI) -> None:
    """Let every error leave in this form; what nobody expected is caught by ``api.replies``."""
    app.add_exception_handler(FluxfarmError, _fluxfarm_error)
    app.add_exception_handler(RequestValidationError, _invalid_parameters)
    app.add_exception_handler(HTTPException, _http_exception)
