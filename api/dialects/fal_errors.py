"""Errors as fal words them: a list of faults for input (422), else a sentence with an ``error_type``."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, Field

from api.dialects.wording import ErrorReply
from fluxfarm.airecord import Problem
from fluxfarm.errors import (
    BadRequest,
    FluxfarmError,
    ForbiddenUrl,
    InternalError,
    InvalidIdempotencyKey,
    InvalidReference,
    MalformedBody,
    RenderError,
    StillRendering,
    Unavailable,
    UnknownField,
    UnreachableUrl,
)
from storage.replies.fal import DEADLINE, UNPROCESSABLE, failure, input_fault

ERROR_TYPE: Final = "X-Fal-Error-Type"
RETRYABLE: Final = "X-Fal-Retryable"
TIMEOUT_TYPE: Final = "X-Fal-Request-Timeout-Type"
TYPES: Final[tuple[tuple[type[FluxfarmError], str], ...]] = (
    (StillRendering, "request_timeout"),
    (Unavailable, "runner_scheduling_failure"),
    (InternalError, "internal_error"),
    (BadRequest, "bad_request"),
)
#: the type of a fault of the input; the first that fits
FAULTS: Final[tuple[tuple[type[FluxfarmError], str], ...]] = (
    (UnknownField, "extra_forbidden"),
    (InvalidReference, "image_load_error"),
    (UnreachableUrl, "file_download_error"),
    (ForbiddenUrl, "file_download_error"),
    (BadRequest, "value_error"),
)


class FalFault(BaseModel):
    """One fault of the input."""

    loc: list[str | int] = Field(description="`body` and the path of the field.")
    msg: str = Field(description="For a person.")
    type: str = Field(description="The stable word for a program.")


class FalError(BaseModel):
    """What went wrong."""

    detail: str | list[FalFault]
    error_type: str | None = None


def error_reply(error: FluxfarmError, _request_id: str) -> ErrorReply:
    """The error in one of fal's two forms, with its headers."""
    headers = {RETRYABLE: "true" if error.retryable else "false"}
    if isinstance(error, RenderError):
        return failure_reply(Problem(code=error.code, message=error.message, retryable=error.retryable))
    if isinstance(error, BadRequest) and not isinstance(error, MalformedBody | InvalidIdempotencyKey):
        kind = next(kind for leaf, kind in FAULTS if isinstance(error, leaf))
        return _reply(UNPROCESSABLE, input_fault(error.param, error.message, kind), headers)
    body: dict[str, Any] = {"detail": error.message}
    if isinstance(error, StillRendering):
        headers[TIMEOUT_TYPE] = "user"  # its clients try a 504 again otherwise, which makes a second job
    error_type = next((word for leaf, word in TYPES if isinstance(error, leaf)), None)
    return _reply(error.status, body | ({"error_type": error_type} if error_type else {}), headers)


def failure_reply(problem: Problem) -> ErrorReply:
    """What the result of a request that ended badly is."""
    failed = failure(problem)
    headers = {RETRYABLE: "true" if problem.retryable else "false"}
    if problem.code == DEADLINE:
        headers[TIMEOUT_TYPE] = "user"
    return _reply(failed.status, failed.body, headers)


def _reply(status: int, body: dict[str, Any], headers: dict[str, str]) -> ErrorReply:
    if "error_type" in body:
        headers[ERROR_TYPE] = body["error_type"]
    return ErrorReply(status=status, content=body, headers=headers)
