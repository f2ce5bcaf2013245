"""Keys of the tenant, and what it spent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Form, Request, Response

from api.auth import allowed
from api.dashboard import pages, plots, words
from api.dashboard.plots import Plot
from api.dashboard.visitors import Looking, VisitorPart
from api.routes import keys
from api.routes.keys import FreshKeyReply, NewKey, revoke_key
from api.routes.usage import USUAL, UsageReply, usage_of
from api.strict import read
from fluxfarm.errors import InvalidField
from fluxfarm.scopes import Scope

DAYS: Final = USUAL.days

router = APIRouter(prefix="/usage")


@router.get("")
def show(request: Request, visitor: VisitorPart) -> Response:
    """Spend of thirty days, and the keys for who may see them."""
    with visitor.looking() as looking:
        return _page(request, looking, None)


@router.post("/keys")
def make(
    request: Request,
    visitor: VisitorPart,
    name: Annotated[str, Form(max_length=200)],
    scopes: Annotated[list[str], Form(max_length=len(Scope))] = [],  # noqa: B006 - FastAPI copies it
    days: Annotated[str, Form(max_length=5)] = "",
) -> Response:
    """Make a key; its text is shown this once."""
    asked: dict[str, Any] = {"name": name, "scopes": scopes}
    if days.strip():
        asked["expiresAt"] = (datetime.now(UTC) + timedelta(days=_number(days))).isoformat(timespec="seconds")
    with visitor.looking() as looking:
        caller = allowed(looking.caller, Scope.ADMIN)
        return _page(request, looking, keys.make(looking.session, caller, read(NewKey, asked)))


def _number(days: str) -> int:
    if not days.strip().isdecimal() or not int(days):
        raise InvalidField("Say the days that the key lives as a whole number from 1 on; leave it empty for good.")
    return int(days)


@router.post("/keys/{uuid}/revoke")
def revoke(visitor: VisitorPart, uuid: UUID) -> Response:
    """Stop a key at once."""
    revoke_key(visitor.farm, visitor.secret, uuid)
    return pages.go("/usage")


def _page(request: Request, looking: Looking, fresh: FreshKeyReply | None) -> Response:
    now = datetime.now(UTC)
    tenant_id = looking.caller.tenant_id
    usage = usage_of(looking.session, tenant_id, now - USUAL, now)
    may_see_keys = Scope.ADMIN in looking.caller.scopes
    return pages.page(
        request,
        "usage.html",
        looking,
        at="/usage",
        usage=usage,
        keys=keys.listed(looking.session, tenant_id) if may_see_keys else [],
        own=looking.caller.id,
        fresh=fresh,
        may_see_keys=may_see_keys,
        grantable=[one for one in Scope if one is not Scope.OPERATOR or looking.is_operator],
        daily=_daily(usage),
        now=now,
    )


def _daily(usage: UsageReply) -> Plot:
    spent = {one.name: one for one in usage.by_day}
    today = usage.until.date()
    days = [today - timedelta(days=back) for back in range(DAYS - 1, -1, -1)]
    values = [float(spent[f"{day}"].amount) if f"{day}" in spent else 0.0 for day in days]
    titles = [f"{words.usd(value)} on {day}" for value, day in zip(values, days, strict=True)]
    along = [f"{days[at]:%d %b}" for at in (0, 7, 14, 21, 29)]
    return plots.bars(values, titles, along, " $", f"{words.usd(usage.spent_in_period)} in thirty days.")
