"""The farm's own form of an error: RFC 9457, with a stable code for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from api.dialects.wording import ErrorReply
from fluxfarm.errors import FluxfarmError, InvalidCampaign, Issue, TooManyRequests

PROBLEM_JSON: Final = "application/problem+json"


class ProblemIssue(BaseModel):
    """One thing that is wrong with a campaign; lines, columns and rows count from 1."""

    message: str
    param: str | None = Field(None, description="Dotted path in the specification.")
    row: int | None = Field(None, description="Of the data; 0 is the header of a CSV.")
    field: str | None = Field(None, description="The row's column.")
    line: int | None = None
    column: int | None = None


class ProblemDetails(BaseModel):
    """RFC 9457, with a code for programs."""

    model_config = ConfigDict(
        validate_by_name=True,
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
        },
    )

    type: str = Field(description="`urn:fluxfarm:problem:` and the code.")
    title: str = Field(description="The code in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong and what to do, for a person.")
    code: str = Field(description="The stable word for a program.")
    param: str | None = Field(None, description="The field at fault, as a dotted path.")
    job: UUID | None = Field(None, description="The job that stands in the way, when it is another one.")
    issues: list[ProblemIssue] | None = Field(None, description="What is wrong with a campaign; the first twenty.")
    total: int | None = Field(None, description="How many issues there are in all.")
    violated_policies: list[str] | None = Field(
        None, alias="violated-policies", description="The limits that are reached, as `RateLimit-Policy` names them."
    )
    retryable: bool = Field(description="Whether the same request can succeed later.")
    instance: str = Field(description="`urn:fluxfarm:request:` and the request id, which the log has too.")


def _issue(issue: Issue) -> ProblemIssue:
    return ProblemIssue.model_validate({name: value for name, value in asdict(issue).items() if name != "file"})


def error_reply(error: FluxfarmError, request_id: str) -> ErrorReply:
    """The error as problem+json."""
    issues = error.issues if isinstance(error, InvalidCampaign) else ()
    details = ProblemDetails(
        type=f"urn:fluxfarm:problem:{error.code}",
        title=error.code.replace("_", " ").capitalize(),
        status=error.status,
        detail=error.message,
        code=error.code,
        param=error.param,
        job=error.job,
        issues=[_issue(issue) for issue in issues] or None,
        total=error.total if isinstance(error, InvalidCampaign) else None,
        violated_policies=[error.policy] if isinstance(error, TooManyRequests) else None,
        retryable=error.retryable,
        instance=f"urn:fluxfarm:request:{request_id}",
    )
    content = details.model_dump(mode="json", by_alias=True, exclude_none=True)
    return ErrorReply(status=error.status, content=content, media_type=PROBLEM_JSON)
