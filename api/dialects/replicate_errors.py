"""Errors as Replicate words them: RFC 7807 as plain JSON, with the sentence in ``detail``."""

from __future__ import annotations

from pydantic import BaseModel, Field

from api.dialects.wording import ErrorReply
from fluxfarm.errors import BadRequest, FluxfarmError, MalformedBody

UNPROCESSABLE = 422


class ReplicateError(BaseModel):
    """What went wrong."""

    type: str = Field(description="`urn:fluxfarm:problem:` and the code.")
    title: str
    status: int
    detail: str = Field(description="For a person.")
    instance: str | None = None
    invalid_fields: list[dict[str, str]] = []


def error_reply(error: FluxfarmError, request_id: str) -> ErrorReply:
    """The error in Replicate's form: input that cannot be used is a 422."""
    invalid = isinstance(error, BadRequest) and not isinstance(error, MalformedBody)
    status = UNPROCESSABLE if invalid else error.status
    fields = [] if error.param is None else [{"field": error.param, "description": error.message}]
    content = ReplicateError(
        type=f"urn:fluxfarm:problem:{error.code}",
        title=error.code.replace("_", " ").capitalize(),
        status=status,
        detail=error.message,
        instance=f"urn:fluxfarm:request:{request_id}",
        invalid_fields=fields,
    )
    return ErrorReply(status=status, content=content.model_dump(exclude_none=True))
