"""What people say of a campaign's pictures, and whom they show them; shared by the API and the client."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from fluxfarm.airecord import Moment


class Choice(StrEnum):
    """Which files are taken."""

    AUTO = "auto"  #: approved ones if the campaign says ``review``, else all that are done
    APPROVED = "approved"
    DONE = "done"
    DRAFTS = "drafts"


class Verdict(StrEnum):
    """What is said of a picture; ``regenerate`` renders it anew, ``withdraw`` takes the last verdict back."""

    APPROVE = "approve"
    REJECT = "reject"
    COMMENT = "comment"
    REGENERATE = "regenerate"
    WITHDRAW = "withdraw"


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Said(_Part):
    """One word on one picture."""

    id: int
    file: str
    job: UUID | None = Field(description="Whose picture was judged; another one may be the file's by now.")
    verdict: str
    comment: str
    author: str
    created_at: Moment


class Masters(_Part):
    """The files that are rendered now, and those that were there already."""

    made: list[str]
    existing: list[str]


class Share(_Part):
    """A link as its owner sees it."""

    id: UUID
    only: Choice
    expires_at: Moment
    revoked_at: Moment | None
    opened: int = Field(description="How often it was used.")
    created_at: Moment
    url: str | None = Field(None, description="Told only once, when it is made.")
