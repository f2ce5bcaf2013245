"""Errors under 1min.ai's paths. Its own documents show none, so this is the plainest form that its callers can read."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel, Field

from api.dialects.wording import ErrorReply
from fluxfarm.errors import FluxfarmError, Moderated, PromptTooLong, ReferenceGone

BAD_REQUEST = 400


class OneMinError(BaseModel):
    """What went wrong."""

    code: str = Field(description="The stable word for a program.")
    message: str = Field(description="For a person.")
    param: str | None = Field(None, description="The field at fault, as a dotted path.")
    uuid: UUID | None = Field(None, description="The job, when there is one.")


def error_reply(error: FluxfarmError, _request_id: str) -> ErrorReply:
    """The error, flat; a job that ended badly is a 500, or a 400 when its input was at fault."""
    fault = isinstance(error, Moderated | PromptTooLong | ReferenceGone)
    content = OneMinError(code=error.code, message=error.message, param=error.param, uuid=error.job)
    return ErrorReply(
        status=BAD_REQUEST if fault else error.status, content=content.model_dump(mode="json", exclude_none=True)
    )
