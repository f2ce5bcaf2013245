"""The farm's own form of an error: RFC 9457, with a stable code for programs."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from api.dialects.wording import ErrorReply
from fluxfarm.errors import FluxfarmError

PROBLEM_JSON: Final = "application/problem+json"


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


def error_reply(error: FluxfarmError, request_id: str) -> ErrorReply:
    """The error as problem+json."""
    details = ProblemDetails(
        type=f"urn:fluxfarm:problem:{error.code}",
        title=error.code.replace("_", " ").capitalize(),
        status=error.status,
        detail=error.message,
        code=error.code,
        param=error.param,
        job=error.job,
        retryable=error.retryable,
        instance=f"urn:fluxfarm:request:{request_id}",
    )
    content = details.model_dump(mode="json", exclude_none=True)
    return ErrorReply(status=error.status, content=content, media_type=PROBLEM_JSON)
