"""Remote providers: how they did, whose key pays, and which breakers are open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.auth import Secret, allowed
from api.bodies import JsonBody, parse_json
from api.creation import Making
from api.errors import problems
from api.farm import Farm, FarmPart
from api.replies import reply
from api.strict import Strict, read
from fluxfarm.airecord import Moment, Usd
from fluxfarm.catalog import find_model
from fluxfarm.errors import InvalidField, NotFound
from fluxfarm.jobs import JobType
from fluxfarm.offers import Offer
from fluxfarm.remotes import LOCAL, Remote
from fluxfarm.request import RenderRequest
from fluxfarm.scopes import Scope
from storage.database import Session
from storage.gates import Breaker, Gate
from storage.repository import accounts, leaderboard, tenants
from storage.repository.accounts import OPERATOR, own_account
from storage.repository.leaderboard import Row
from storage.repository.tenants import Caller

Window = Literal["24h", "30d"]

WINDOWS: Final[dict[Window, float]] = {"24h": 86_400.0, "30d": 30 * 86_400.0}  #: seconds
HINT: Final = 4  #: characters of a key that are shown

router = APIRouter(prefix="/v1/providers", tags=["providers"])


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, from_attributes=True)


class BreakerReply(_Part):
    """Whether calls are let through: `closed` all, `open` none for so many seconds, `half-open` one that probes."""

    state: Literal["closed", "open", "half-open"]
    reason: str
    seconds: float


class ProviderRow(_Part):
    """A provider and one of its models; the farm's own workers are the row `local`, for all models.

    Figures are of the window, over all tenants; null: nobody tried. Seconds are those of whole attempts.
    """

    provider: str
    model: str | None
    configured: bool = Field(description="It can be used: by a key of the farm or one of your own.")
    own_key: bool
    attempts: int
    success: float | None = Field(description="Share of the attempts that went well; refused requests do not count.")
    p50: float | None
    p95: float | None
    first_byte: float | None = Field(description="Seconds until the first byte of a picture, in the middle.")
    price: Usd | None = Field(description="USD of one picture at the model's usual size and steps, by the price list.")
    paid: Usd | None = Field(description="USD a picture that was really paid, on average.")
    breaker: BreakerReply | None


class ProviderPage(_Part):
    """The leaderboard: the best success first, then the cheapest."""

    window: str
    data: list[ProviderRow]


@dataclass(frozen=True, slots=True)
class Tried:
    """Attempts by provider and model, and the names of the providers that the tenant has a key of its own at."""

    window: Window
    tenant_id: UUID
    own: frozenset[str]
    rows: dict[tuple[str, str], Row]


class OwnKey(Strict):
    """A key of your own at a provider."""

    key: str = Field(min_length=1, max_length=500, pattern=r"^[\x21-\x7e]+$", description="Never shown again.")
    account_id: str = Field("", alias="accountId", max_length=100, pattern=r"^[A-Za-z0-9_-]*$")


class OwnKeyReply(_Part):
    """What may be shown of a key."""

    provider: str
    hint: str = Field(description="Its last characters.")
    account_id: str
    version: int = Field(description="Counts its changes.")
    created_at: Moment
    changed_at: Moment


@router.get("", name="listProviders", responses={200: {"model": ProviderPage}, **problems(400, 401, 403)})
def list_providers(
    farm: FarmPart, secret: Secret, window: Annotated[Window, Query(description="How far back.")] = "24h"
) -> Response:
    """How each provider did: time, success, price, breaker."""
    with farm.database.transaction() as session:
        tried = read_tried(session, allowed(tenants.authenticate(session, secret), Scope.READ), window)
    return reply(board(farm, tried))


def read_tried(session: Session, caller: Caller, window: Window) -> Tried:
    """What the record knows for the leaderboard of a caller."""
    rows = {(row.provider, row.model): row for row in leaderboard.board(session, WINDOWS[window])}
    return Tried(window, caller.tenant_id, accounts.names(session, caller.tenant_id), rows)


def board(farm: Farm, tried: Tried) -> ProviderPage:
    """The leaderboard; in no transaction, as the breakers are asked for over the network."""
    own, rows = tried.own, tried.rows
    gates = {name: Gate(name, own_account(tried.tenant_id) if name in own else OPERATOR) for name in farm.remotes}
    breakers = farm.gates.look(gates.values())
    data = [_row(LOCAL, None, rows.get((LOCAL, "")), configured=bool(farm.settings.models))]
    for name, remote in farm.remotes.items():
        for offer in remote.offers:
            row = rows.get((name, offer.model))
            if remote.is_configured or name in own or row is not None:
                data.append(_offered(remote, offer, row, breakers[gates[name]], own_key=name in own))
    data.sort(key=lambda one: (-(one.success if one.success is not None else 0.5), one.price or 0, one.provider))
    return ProviderPage(window=tried.window, data=data)


@router.put(
    "/{provider}/key",
    name="putProviderKey",
    responses={200: {"model": OwnKeyReply}, **problems(400, 401, 403, 404, 413, 415)},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/OwnKey"}}},
        }
    },
)
def put_key(farm: FarmPart, creation: Making, provider: str, body: JsonBody) -> Response:
    """Use a key of your own at a provider, in the place of the one before; the farm then charges nothing for it."""
    with farm.database.transaction() as session:
        caller = creation.begin(session, Scope.ADMIN, body)
        _known(farm, provider)
        if not farm.remotes.enabled:
            raise InvalidField(
                "Jobs do not leave this farm; its operator may set FLUXFARM_REMOTE=on.", param="provider"
            )
        asked = read(OwnKey, parse_json(body))
        sealed = farm.sealer.seal(asked.key)
        kept = accounts.put(
            session,
            caller.tenant_id,
            provider,
            sealed,
            asked.key[-HINT:] if len(asked.key) > 3 * HINT else "",
            asked.account_id,
        )
        answer = creation.keep(session, reply(OwnKeyReply.model_validate(kept)))
    farm.gates.reset(Gate(provider, own_account(caller.tenant_id)))
    return answer


@router.get(
    "/{provider}/key",
    name="readProviderKey",
    responses={200: {"model": OwnKeyReply}, **problems(401, 403, 404)},
)
def read_key(farm: FarmPart, secret: Secret, provider: str) -> Response:
    """Whether you have a key of your own at a provider; its text is never shown."""
    with farm.database.transaction() as session:
        caller = allowed(tenants.authenticate(session, secret), Scope.READ)
        found = accounts.read(session, caller.tenant_id, provider)
    return reply(OwnKeyReply.model_validate(found))


@router.delete("/{provider}/key", name="deleteProviderKey", status_code=204, responses=problems(401, 403, 404))
def delete_key(farm: FarmPart, secret: Secret, provider: str) -> Response:
    """Forget a key of your own; calls that run with it are lost to the farm."""
    with farm.database.transaction() as session:
        caller = allowed(tenants.authenticate(session, secret), Scope.ADMIN)
        accounts.remove(session, caller.tenant_id, provider)
    return Response(status_code=204)


@router.post("/{provider}/reset", name="resetProvider", status_code=204, responses=problems(401, 403, 404))
def reset_provider(farm: FarmPart, secret: Secret, provider: str) -> Response:
    """Close the breaker of the farm's account at a provider, after somebody looked at it."""
    with farm.database.transaction() as session:
        allowed(tenants.authenticate(session, secret), Scope.OPERATOR)
    _known(farm, provider)
    farm.gates.reset(Gate(provider, OPERATOR))
    return Response(status_code=204)


def list_price(offer: Offer) -> Any:
    """USD of one picture at the model's own size and steps; None: the provider does not draw that size."""
    profile = find_model(offer.model)
    usual = RenderRequest(
        type=JobType.IMAGE_GENERATOR,
        model=profile.slug,
        prompt="-",
        width=profile.default_size.width,
        height=profile.default_size.height,
        seeds=(0,),
        steps=int(profile.steps.default),
        guidance=profile.guidance.default,
        output_format="png",
        output_quality=80,
    )
    return None if offer.refusal(usual) else offer.price(usual)


def _known(farm: Farm, provider: str) -> Remote:
    if provider not in farm.remotes:
        raise NotFound(f"There is no provider {provider[:40]!r}; GET /v1/models/{{id}} names them.")
    return farm.remotes[provider]


def _offered(remote: Remote, offer: Offer, row: Row | None, breaker: Breaker, *, own_key: bool) -> ProviderRow:
    found = _row(remote.name, offer.model, row, configured=remote.is_configured or own_key)
    shown = BreakerReply(state=breaker.state, reason=breaker.reason, seconds=round(breaker.seconds, 1))
    return found.model_copy(update={"own_key": own_key, "price": list_price(offer), "breaker": shown})


def _row(provider: str, model: str | None, row: Row | None, *, configured: bool) -> ProviderRow:
    return ProviderRow(
        provider=provider,
        model=model,
        configured=configured,
        own_key=False,
        attempts=0 if row is None else row.good + row.bad,
        success=None if row is None else row.success,
        p50=_seconds(row.p50 if row else None),
        p95=_seconds(row.p95 if row else None),
        first_byte=_seconds(row.first_byte if row else None),
        price=None,
        paid=None if row is None or row.paid is None else round(row.paid, 6),
        breaker=None,
    )


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
