"""Errors as Cloudflare's version 4 words them: an envelope without a result, with Workers AI's code for each."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, Field

from api.dialects.wording import ErrorReply
from fluxfarm.errors import (
    BadRequest,
    Canceled,
    Conflict,
    FluxfarmError,
    Forbidden,
    IdempotencyInFlight,
    MalformedBody,
    MethodNotAllowed,
    ModelNotFound,
    Moderated,
    NoRoute,
    NotFound,
    PayloadTooLarge,
    PromptTooLong,
    ReferenceGone,
    StillRendering,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
)

PAYMENT_REQUIRED: Final = 402
FAULT: Final = 3043  #: internal server error; seen in its clients' reports, not in its table
#: (class, code, HTTP status; None: the error's own); the first that fits
TABLE: Final[tuple[tuple[type[FluxfarmError], int, int | None], ...]] = (
    (Unauthorized, 10000, None),  # of the whole API, not of Workers AI
    (ModelNotFound, 5007, 400),
    (NoRoute, 5007, 400),
    (MalformedBody, 3003, 400),
    (UnsupportedMediaType, 5004, 400),
    (PromptTooLong, 5004, 400),
    (ReferenceGone, 5004, 400),
    (Moderated, 3030, 400),
    (BadRequest, 5004, 400),
    (Forbidden, 3023, 403),
    (PayloadTooLarge, 3006, 413),
    (StillRendering, 3007, 408),
    (Canceled, 3008, 408),
    (TooManyRequests, 3040, 429),
    (Unavailable, 3040, 429),
    (MethodNotAllowed, 5019, 405),
    (NotFound, 7003, 404),  # of the whole API: no route for that URI
    (Conflict, 5004, None),
)


class CloudflareErrorEntry(BaseModel):
    """What went wrong."""

    code: int
    message: str


class CloudflareError(BaseModel):
    """The envelope of a failure."""

    success: bool = False
    errors: list[CloudflareErrorEntry]
    messages: list[Any] = []
    result: None = Field(None, description="Always null here.")


def error_reply(error: FluxfarmError, _request_id: str) -> ErrorReply:
    """The error in the envelope; ``x-should-retry`` keeps the SDKs from asking again where that makes a second job."""
    code, status = _worded(error)
    where = f"{error.param}: " if error.param and error.param not in error.message else ""
    content = CloudflareError(errors=[CloudflareErrorEntry(code=code, message=f"{where}{error.message}")])
    final = error.job is not None or (isinstance(error, Conflict) and not isinstance(error, IdempotencyInFlight))
    return ErrorReply(status=status, content=content.model_dump(), headers={"x-should-retry": "false"} if final else {})


def _worded(error: FluxfarmError) -> tuple[int, int]:
    if error.status == PAYMENT_REQUIRED:
        return 3036, 429
    for kind, code, status in TABLE:
        if isinstance(error, kind):
            return code, error.status if status is None else status
    return FAULT if error.status >= 500 else 5004, error.status  # noqa: PLR2004
