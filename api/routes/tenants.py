"""Tenants: what each may and gets; the operator's part of the API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.auth import Secret, allowed
from api.bodies import JsonBody, parse_json
from api.creation import Making
from api.errors import problems
from api.farm import FarmPart
from api.replies import reply
from api.routes.keys import FreshKeyReply, NewKey, fresh
from api.strict import Strict, future, read
from fluxfarm.airecord import Moment, Usd
from fluxfarm.catalog import find_model
from fluxfarm.denials import LONGEST, DenyList
from fluxfarm.policies import SafetyMode
from fluxfarm.pricing import SMALLEST
from fluxfarm.scopes import Scope
from storage.database import Session
from storage.records import Tenant
from storage.repository import leaderboard, ledger, policies, tenants

MOST: Final = 2**31 - 1
BESIDE: Final = {"retention", "safety", "budget"}  #: what is no column of its own name
SAFETY: Final = {"mode": "safety", "deny": "deny", "may_disable": "may_disable_safety"}
Count = Annotated[int, Field(ge=1, le=MOST)]
Days = Annotated[int, Field(ge=0, le=36_500)]
Hours = Annotated[int, Field(ge=0, le=876_000)]
Weight = Annotated[float, Field(ge=0.001, le=1000)]
Money = Annotated[float, Field(ge=0, le=1_000_000)]
VISIBLE: Final = r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"
Denied = Annotated[list[Annotated[str, Field(max_length=LONGEST, pattern=VISIBLE)]], Field(max_length=1000)]
Models = Annotated[list[Annotated[str, Field(max_length=200)]], Field(min_length=1, max_length=100)]

router = APIRouter(prefix="/v1/tenants", tags=["tenants"])

EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "agency": {
        "summary": "A commercial tenant with half a share and two jobs at a time",
        "value": {
            "name": "agency",
            "weight": 0.5,
            "commercial": True,
            "maxRunning": 2,
            "retention": {"promptDays": 30},
        },
    }
}
FIRST_KEY: Final = {"first": {"summary": "A key", "value": {"name": "first", "scopes": ["admin", "render", "read"]}}}


class _Asked(Strict):
    model_config = ConfigDict(alias_generator=to_camel)


class Retention(_Asked):
    """How long things are kept; null: as the farm's settings say; 0: until they are erased."""

    prompt_days: Days | None = Field(None, description="Prompts, after the job's end.")
    reference_hours: Hours | None = Field(None, description="Reference pictures, after upload or the job's end.")
    result_days: Days | None = Field(None, description="Pictures, after the job's end.")
    record_days: Days | None = Field(None, description="Whole records, after the job's end; amounts stay.")


class Safety(_Asked):
    """What is checked before a picture is given out."""

    mode: SafetyMode | None = Field(None, description="`off`, `log` or `block`; null: as the farm's setting says.")
    deny: Denied = Field([], description="Words that no prompt may hold, besides the farm's; `/…/` is an expression.")
    may_disable: bool = Field(False, description="A job may switch the checks off by `disable_safety_checker`.")


class TenantChange(_Asked):
    """What to change; what is not named stays, null lifts a limit."""

    weight: Weight = Field(1, description="Share of the GPUs against the other tenants.")
    commercial: bool = Field(False, description="It renders for business: no weights for non-commercial use.")
    models: Models | None = Field(None, description="Models that it may render, by slug or alias; null: all.")
    max_running: Count | None = Field(None, description="Jobs that may render at once; the others wait.")
    rate_limit: Count | None = Field(None, description="Calls a minute of each of its keys; null: the farm's setting.")
    budget: Money | None = Field(None, description="USD that its jobs may cost in all; null: no limit.")
    retention: Retention = Field(Retention())
    safety: Safety = Field(Safety())


class NewTenant(TenantChange):
    """A tenant to make."""

    name: str = Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")


class _Told(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, from_attributes=True)


class RetentionReply(_Told):
    """How long things are kept; null: as the farm's settings say; 0: until they are erased."""

    prompt_days: int | None
    reference_hours: int | None
    result_days: int | None
    record_days: int | None


class SafetyReply(_Told):
    """What is checked before a picture is given out; a mode of null is the farm's."""

    mode: SafetyMode | None
    deny: list[str]
    may_disable: bool


class TenantReply(_Told):
    """A tenant."""

    id: UUID
    name: str
    weight: float
    commercial: bool
    models: list[str] | None
    max_running: int | None
    rate_limit: int | None
    budget: Usd | None
    retention: RetentionReply
    safety: SafetyReply
    created_at: Moment


class TenantList(BaseModel):
    """Every tenant, by name."""

    data: list[TenantReply]


def _body(model: type[Strict], examples: Mapping[str, Any] | None = None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
    content |= {"examples": examples} if examples else {}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


@router.get("", operation_id="listTenants", responses={200: {"model": TenantList}, **problems(401, 403)})
def list_tenants(farm: FarmPart, secret: Secret) -> Response:
    """List the tenants."""
    with farm.database.transaction() as session:
        allowed(tenants.authenticate(session, secret), Scope.OPERATOR)
        every = policies.list_all(session)
        caps = leaderboard.caps(session, [tenant.id for tenant in every])
        found = [_told(tenant, caps.get(tenant.id)) for tenant in every]
    return reply(TenantList(data=found))


@router.post(
    "",
    operation_id="createTenant",
    status_code=201,
    responses={201: {"model": TenantReply}, **problems(400, 401, 403, 404, 409, 413, 415)},
    openapi_extra=_body(NewTenant, EXAMPLES),
)
def create_tenant(farm: FarmPart, creation: Making, body: JsonBody) -> Response:
    """Make a tenant; `POST /v1/tenants/{tenant}/keys` gives it a key."""
    with farm.database.transaction() as session:
        creation.begin(session, Scope.OPERATOR, body)
        asked = read(NewTenant, parse_json(body))
        tenant = policies.create(session, {"name": asked.name, **_columns(asked)})
        made = _told(tenant, _budget(session, tenant.id, asked))
        return creation.keep(session, reply(made, 201))


@router.get("/{tenant}", operation_id="readTenant", responses={200: {"model": TenantReply}, **problems(401, 403, 404)})
def read_tenant(farm: FarmPart, secret: Secret, tenant: UUID) -> Response:
    """Read a tenant."""
    with farm.database.transaction() as session:
        allowed(tenants.authenticate(session, secret), Scope.OPERATOR)
        found = _told(policies.read(session, tenant), ledger.standing(session, tenant).cap)
    return reply(found)


@router.patch(
    "/{tenant}",
    operation_id="changeTenant",
    responses={200: {"model": TenantReply}, **problems(400, 401, 403, 404, 413, 415)},
    openapi_extra=_body(TenantChange),
)
def change_tenant(farm: FarmPart, secret: Secret, tenant: UUID, body: JsonBody) -> Response:
    """Change a tenant.

    Jobs that run go on, and jobs that wait keep their place; a new rate holds within a minute.
    """
    with farm.database.transaction() as session:
        allowed(tenants.authenticate(session, secret), Scope.OPERATOR)
        asked = read(TenantChange, parse_json(body))
        changed = _told(policies.change(session, tenant, _columns(asked)), _budget(session, tenant, asked))
    return reply(changed)


@router.post(
    "/{tenant}/keys",
    operation_id="createTenantKey",
    status_code=201,
    responses={201: {"model": FreshKeyReply}, **problems(400, 401, 403, 404, 413, 415)},
    openapi_extra=_body(NewKey, FIRST_KEY),
)
def create_tenant_key(farm: FarmPart, creation: Making, tenant: UUID, body: JsonBody) -> Response:
    """Make a key of a tenant, most often the first one, with the scope `admin`, which makes the others."""
    with farm.database.transaction() as session:
        creation.begin(session, Scope.OPERATOR, body)
        asked = read(NewKey, parse_json(body))
        expires_at = future(asked.expires_at, "expiresAt", datetime.now(UTC))
        policies.read(session, tenant)
        made = tenants.create_key(session, tenant, asked.name, asked.scopes, expires_at, asked.rate_limit)
        return creation.keep(session, reply(fresh(*made), 201))


def _columns(asked: TenantChange) -> dict[str, Any]:
    """The columns that were named."""
    values = {name: getattr(asked, name) for name in asked.model_fields_set - BESIDE - {"name"}}
    values |= {name: getattr(asked.retention, name) for name in asked.retention.model_fields_set}
    values |= {SAFETY[name]: getattr(asked.safety, name) for name in asked.safety.model_fields_set}
    DenyList.read(asked.safety.deny, "safety.deny")
    if "weight" in values:
        values["weight"] = Decimal(str(asked.weight))
    if asked.models is not None:
        values["models"] = list(dict.fromkeys(find_model(name).slug for name in asked.models))
    return values


def _budget(session: Session, tenant: UUID, asked: TenantChange) -> Decimal | None:
    """Set the budget if it was named; gives the one that holds."""
    if "budget" not in asked.model_fields_set:
        return ledger.standing(session, tenant).cap
    cap = None if asked.budget is None else Decimal(str(asked.budget)).quantize(SMALLEST)
    return ledger.set_cap(session, tenant, ledger.TENANT, cap).cap


def _told(tenant: Tenant, budget: Decimal | None) -> TenantReply:
    columns = {name: getattr(tenant, name) for name in TenantReply.model_fields if name not in BESIDE}
    safety = SafetyReply.model_validate({name: getattr(tenant, column) for name, column in SAFETY.items()})
    return TenantReply(**columns, budget=budget, retention=RetentionReply.model_validate(tenant), safety=safety)
