"""Errors as OpenAI's clients know them: ``{"error": {message, type, param, code}}``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from pydantic import BaseModel, Field

from api.dialects import native_errors
from api.dialects.wording import ErrorReply
from fluxfarm.errors import (
    BadRequest,
    Canceled,
    Conflict,
    FluxfarmError,
    Forbidden,
    ForbiddenUrl,
    IdempotencyInFlight,
    IdempotencyKeyReused,
    InternalError,
    InvalidField,
    InvalidPrompt,
    InvalidReference,
    InvalidSize,
    Moderated,
    NotFound,
    PayloadTooLarge,
    PromptTooLong,
    ReferenceGone,
    RenderError,
    StillRendering,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnknownField,
    UnreachableUrl,
)

PAYMENT_REQUIRED: Final = 402
_BAD: Final = "invalid_request_error"
#: (class, status, type, code); the first that fits, None: the error's own.
_TABLE: Final[tuple[tuple[tuple[type[FluxfarmError], ...], int | None, str, str | None], ...]] = (
    ((Moderated,), 400, "image_generation_user_error", "moderation_blocked"),
    ((PromptTooLong, ReferenceGone), 400, _BAD, "invalid_value"),
    ((Canceled,), 409, "conflict_error", None),
    ((RenderError,), 500, "server_error", "generation_failed"),
    (
        (InvalidField, InvalidPrompt, InvalidSize, InvalidReference, ForbiddenUrl, UnreachableUrl),
        None,
        _BAD,
        "invalid_value",
    ),
    ((UnknownField,), None, _BAD, "unknown_parameter"),
    ((BadRequest,), None, _BAD, None),
    ((Unauthorized,), None, "authentication_error", None),
    ((Forbidden,), None, "permission_error", None),
    ((NotFound,), None, "not_found_error", None),
    ((Conflict,), None, "conflict_error", None),
    ((PayloadTooLarge,), None, _BAD, "image_too_large"),
    ((IdempotencyKeyReused,), None, "idempotency_error", None),
    ((TooManyRequests,), None, "rate_limit_error", "rate_limit_exceeded"),
    ((StillRendering,), None, "timeout_error", None),
    ((Unavailable,), None, "service_unavailable", "upstream_unavailable"),
    ((InternalError,), None, "server_error", None),
)


class OpenAIErrorBody(BaseModel):
    """What went wrong."""

    message: str = Field(description="For a person.")
    type: str = Field(description="The family.")
    param: str | None = Field(description="The field at fault.")
    code: str | None = Field(description="The stable word for a program.")
    job_id: str | None = Field(None, description="The job, when there is one; it is read at `/v1/jobs/{uuid}`.")


class OpenAIError(BaseModel):
    """OpenAI's error object."""

    error: OpenAIErrorBody


def error_object(error: FluxfarmError) -> dict[str, Any]:
    """The inner object; also what a stream says when it breaks off."""
    _, family, code = _worded(error)
    message = f"{error.message} safety_violations=[unspecified]" if isinstance(error, Moderated) else error.message
    job = None if error.job is None else str(error.job)
    param = None if error.param is None else error.param.removeprefix("promptObject.")
    body = OpenAIErrorBody(message=message, type=family, param=param, code=code, job_id=job)
    return body.model_dump(exclude={"job_id"} if error.job is None else None)


def error_reply(error: FluxfarmError, _request_id: str) -> ErrorReply:
    """The error in OpenAI's form; ``x-should-retry`` keeps its clients from asking again where that cannot help."""
    headers = {}
    if error.job is not None or (isinstance(error, Conflict) and not isinstance(error, IdempotencyInFlight)):
        headers["x-should-retry"] = "false"
    return ErrorReply(status=_worded(error)[0], content={"error": error_object(error)}, headers=headers)


def shared_reply(error: FluxfarmError, request_id: str) -> ErrorReply:
    """Both forms in one, for the paths that OpenAI's clients and the farm's own have in common."""
    native = native_errors.error_reply(error, request_id)
    return replace(native, content={**native.content, "error": error_object(error)})


def _worded(error: FluxfarmError) -> tuple[int, str, str]:
    if error.status == PAYMENT_REQUIRED:
        return error.status, "insufficient_credits", "insufficient_quota"
    for kinds, status, family, code in _TABLE:
        if isinstance(error, kinds):
            return status or error.status, family, code or error.code
    return error.status, _BAD if error.status < InternalError.status else "server_error", error.code
