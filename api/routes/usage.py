"""What the tenant's jobs cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from api.auth import Secret, allowed
from api.errors import problems
from api.farm import FarmPart
from api.replies import reply
from api.strict import QueryMoment
from fluxfarm.airecord import Moment, Usd
from fluxfarm.errors import InvalidField
from fluxfarm.scopes import Scope
from storage.database import Session
from storage.repository import leaderboard, ledger, tenants

USUAL: Final = timedelta(days=30)

router = APIRouter(prefix="/v1/usage", tags=["money"])


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, from_attributes=True)


class SpentReply(_Part):
    """USD and jobs under one name: a provider, a campaign (empty: none) or a day."""

    name: str
    amount: Usd
    jobs: int


class UsageReply(_Part):
    """Where the tenant stands, and what was paid from `since` until `until`; USD.

    `reserved` is the estimate of jobs that are not over; `budget` null is no limit.
    """

    budget: Usd | None
    left: Usd | None
    reserved: Usd
    spent: Usd
    since: Moment
    until: Moment
    spent_in_period: Usd
    by_provider: list[SpentReply]
    by_campaign: list[SpentReply]
    by_day: list[SpentReply]


@router.get("", name="readUsage", responses={200: {"model": UsageReply}, **problems(400, 401, 403)})
def read_usage(
    farm: FarmPart,
    secret: Secret,
    since: Annotated[QueryMoment | None, Query(description="RFC 3339; 30 days ago when not said.")] = None,
    until: Annotated[QueryMoment | None, Query(description="RFC 3339; now when not said.")] = None,
) -> Response:
    """What jobs cost, and what is left of the budget."""
    end = until or datetime.now(UTC)
    start = since or _before(end)
    if start > end:
        raise InvalidField("since is later than until.", param="since")
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
        return reply(usage_of(session, key.tenant_id, start, end))


def usage_of(session: Session, tenant_id: UUID, since: datetime, until: datetime) -> UsageReply:
    """Where a tenant stands, and what it paid in between."""
    standing = ledger.standing(session, tenant_id)
    by_provider = leaderboard.by_provider(session, tenant_id, since, until)
    by_campaign = leaderboard.by_campaign(session, tenant_id, since, until)
    by_day = leaderboard.by_day(session, tenant_id, since, until)
    return UsageReply(
        budget=standing.cap,
        left=standing.left,
        reserved=standing.reserved,
        spent=standing.spent,
        since=since,
        until=until,
        spent_in_period=sum((one.amount for one in by_provider), standing.spent * 0),
        by_provider=[SpentReply.model_validate(one) for one in by_provider],
        by_campaign=[SpentReply.model_validate(one) for one in by_campaign],
        by_day=[SpentReply.model_validate(one) for one in by_day],
    )


def _before(end: datetime) -> datetime:
    try:
        return end - USUAL
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)
