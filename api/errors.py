"""How an error leaves the API: problem+json with a stable code, never with what the caller sent or what is inside."""

from __future__ import annotations

import json
import math
from typing import Any, Final, cast
from uuid import UUID

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.types import Scope

from api.strict import Complaints, problem_of
from fluxfarm.errors import BadRequest, Conflict, FluxfarmError, InternalError, MethodNotAllowed, NotFound, Unavailable

PROBLEM_JSON: Final = "application/problem+json"
MEANINGS: Final = {
    400: "What was sent cannot be done as it stands; `code` says why, `param` names the field",
    401: "No API key, or a wrong, expired or revoked one",
    403: "The key lacks the scope",
    404: "No such thing for this key's tenant",
    409: "The state of a job does not allow it, or another job stands in the way; `code` says why",
    413: "The body is over the limit",
    415: "The content type is not one that this call takes",
    416: "The range names bytes that do not exist",
    422: "The `Idempotency-Key` came before, with another call",
    500: "A fault of the farm; quote the request id",
    503: "A part of the farm is down; try again after `Retry-After` seconds",
}


class ProblemDetails(BaseModel):
    """RFC 9457, with a code for programs."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "urn:fluxfarm:problem:unknown_field",
                "title": "Unknown field",
                "status": 400,
                "detail": "promptObject.promt is no field here; did you mean 'prompt'?",
                "code": "unknown_field",
                "param": "promptObject.promt",
                "retryable": False,
                "instance": "urn:fluxfarm:request:0fC3Yx1Zk2aQ8u7d",
            }
        }
    )

    type: str = Field(description="`urn:fluxfarm:problem:` and the code.")
    title: str = Field(description="The code in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong and what to do, for a person.")
    code: str = Field(description="The stable word for a program.")
    param: str | None = Field(None, description="The field at fault, as a dotted path.")
    job: UUID | None = Field(None, description="The job that stands in the way, when it is another one.")
    retryable: bool = Field(description="Whether the same request can succeed later.")
    instance: str = Field(description="`urn:fluxfarm:request:` and the request id, which the log has too.")


def problem(error: FluxfarmError, scope: Scope, headers: dict[str, str] | None = None) -> Response:
    """The reply to an error, with ``Retry-After`` (whole seconds), ``WWW-Authenticate`` and its own ``headers``."""
    details = ProblemDetails(
        type=f"urn:fluxfarm:problem:{error.code}",
        title=error.code.replace("_", " ").capitalize(),
        status=error.status,
        detail=error.message,
        code=error.code,
        param=error.param,
        job=error.job if isinstance(error, Conflict) else None,
        retryable=error.retryable,
        instance=f"urn:fluxfarm:request:{scope.get('state', {}).get('request_id', 'unknown')}",
    )
    more = dict(headers or {})
    wait = error.retry_after if error.retry_after is not None else (2.0 if isinstance(error, Unavailable) else None)
    if wait is not None:
        more["Retry-After"] = str(max(1, math.ceil(wait)))
    if error.status == 401:  # noqa: PLR2004
        more["WWW-Authenticate"] = 'Bearer realm="fluxfarm"'
    # ASCII: whatever text got into a message, it can be sent.
    content = json.dumps(details.model_dump(mode="json", exclude_none=True))
    return Response(content, error.status, more, media_type=PROBLEM_JSON)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of these statuses, and of 500 and 503, which every call can give."""
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    return {status: {"description": MEANINGS[status], "content": content} for status in (*statuses, 500, 503)}


async def _fluxfarm_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FluxfarmError)
    return problem(error, request.scope)


async def _invalid_parameters(request: Request, error: Exception) -> Response:
    complaints = cast("Complaints", cast("RequestValidationError", error).errors())
    if any(complaint["loc"][0] == "path" for complaint in complaints):
        return problem(NotFound("There is nothing of that name."), request.scope)
    return problem(problem_of([{**c, "loc": c["loc"][1:]} for c in complaints]), request.scope)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == NotFound.status:
        return problem(NotFound("There is no such path; /openapi.json lists them."), request.scope)
    if error.status_code == MethodNotAllowed.status:
        allowed = ", ".join(sorted(request.app.state.methods.of(request.url.path)))
        message = f"{request.method[:20]} does not go here; allowed: {allowed}."
        return problem(MethodNotAllowed(message), request.scope, {"Allow": allowed})
    if error.status_code < 500:  # noqa: PLR2004
        return problem(BadRequest("The request cannot be read."), request.scope)
    return problem(InternalError("The farm made a mistake."), request.scope)


def install(app: FastAPI) -> None:
    """Let every error leave in this form; what nobody expected is caught by ``api.replies``."""
    app.add_exception_handler(FluxfarmError, _fluxfarm_error)
    app.add_exception_handler(RequestValidationError, _invalid_parameters)
    app.add_exception_handler(HTTPException, _http_exception)
