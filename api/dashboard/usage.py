"""Keys of the tenant, and what it spent."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Form, Request, Response

from api.dashboard import pages, plots, words
from api.dashboard.plots import Plot
from api.dashboard.visitors import Visitor, VisitorPart
from api.routes.keys import FreshKeyReply, KeyPage, create_key, list_keys, revoke_key
from api.routes.usage import UsageReply, read_usage
from fluxfarm.scopes import Scope

DAYS: Final = 30

router = APIRouter(prefix="/usage")


@router.get("")
def show(request: Request, visitor: VisitorPart) -> Response:
    """Spend of thirty days, and the keys for who may see them."""
    return _page(request, visitor, None)


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
    if days.isdecimal() and int(days) > 0:
        asked["expiresAt"] = (datetime.now(UTC) + timedelta(days=int(days))).isoformat(timespec="seconds")
    made = create_key(visitor.farm, visitor.creation(request), json.dumps(asked).encode())
    return _page(request, visitor, FreshKeyReply.model_validate_json(bytes(made.body)))


@router.post("/keys/{uuid}/revoke")
def revoke(visitor: VisitorPart, uuid: UUID) -> Response:
    """Stop a key at once."""
    revoke_key(visitor.farm, visitor.secret, uuid)
    return pages.go("/usage")


def _page(request: Request, visitor: Visitor, fresh: FreshKeyReply | None) -> Response:
    with visitor.looking() as looking:
        may_see_keys = Scope.ADMIN in looking.caller.scopes
        own = looking.caller.id
    usage = UsageReply.model_validate_json(bytes(read_usage(visitor.farm, visitor.secret).body))
    keys = []
    if may_see_keys:
        keys = KeyPage.model_validate_json(bytes(list_keys(visitor.farm, visitor.secret).body)).data
    with visitor.looking() as looking:
        return pages.page(
            request,
            "usage.html",
            looking,
            usage=usage,
            keys=keys,
            own=own,
            fresh=fresh,
            may_see_keys=may_see_keys,
            grantable=[one for one in Scope if one is not Scope.OPERATOR or looking.is_operator],
            daily=_daily(usage),
            now=datetime.now(UTC),
        )


def _daily(usage: UsageReply) -> Plot:
    spent = {one.name: one for one in usage.by_day}
    today = usage.until.date()
    days = [today - timedelta(days=back) for back in range(DAYS - 1, -1, -1)]
    values = [float(spent[f"{day}"].amount) if f"{day}" in spent else 0.0 for day in days]
    titles = [f"{words.usd(value)} on {day}" for value, day in zip(values, days, strict=True)]
    along = [f"{days[at]:%d %b}" for at in (0, 7, 14, 21, 29)]
    return plots.bars(values, titles, along, " $", f"{words.usd(usage.spent_in_period)} in thirty days.")
