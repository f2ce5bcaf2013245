"""API keys of the caller's tenant."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
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
from api.strict import Strict, future, read
from fluxfarm.airecord import Moment
from fluxfarm.errors import Forbidden
from fluxfarm.scopes import Scope
from storage.database import Session
from storage.records import ApiKey
from storage.repository import tenants
from storage.repository.tenants import Caller

router = APIRouter(prefix="/v1/keys", tags=["keys"])

EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "shop": {"summary": "A key that can only send jobs", "value": {"name": "shop", "scopes": [Scope.RENDER]}}
}


SCOPES: Final = (
    "`render`: make, stop and erase jobs, references and webhooks. `read`: look at jobs, pictures, models, workers. "
    "`campaigns`: make and steer campaigns. `admin`: the keys of the tenant. `operator`: tenants; only an operator "
    "can give it."
)


class NewKey(Strict):
    """A key to make."""

    name: str = Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$", description="To tell keys apart.")
    scopes: list[Literal["render", "read", "campaigns", "admin", "operator"]] = Field(
        default=["render", "read"], min_length=1, max_length=len(Scope), description=SCOPES
    )
    expires_at: str | None = Field(
        None,
        alias="expiresAt",
        max_length=40,
        description="RFC 3339 with a zone; never when not said.",
        json_schema_extra={"format": "date-time"},
    )
    rate_limit: int | None = Field(
        None, alias="rateLimit", ge=1, le=2**31 - 1, description="Calls a minute, if fewer than the tenant's keys have."
    )


class Rotation(Strict):
    """How to go over to the new key."""

    grace: int = Field(86_400, ge=0, le=30 * 86_400, description="Seconds that the old key still works.")


class KeyReply(BaseModel):
    """A key, without its text."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    id: UUID
    name: str
    prefix: str = Field(description="The first characters of the key.")
    scopes: list[str]
    rate_limit: int | None = Field(description="Calls a minute; null: as many as the tenant's keys have.")
    replaced_by: UUID | None = Field(description="The key that it was rotated to.")
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None
    last_used_at: Moment | None


class FreshKeyReply(KeyReply):
    """A new key with its text, which no other call shows but this one, repeated under its `Idempotency-Key`."""

    secret: str


class KeyPage(BaseModel):
    """Every key, the newest first."""

    data: list[KeyReply]


@router.get(
    "",
    operation_id="listKeys",
    responses={200: {"model": KeyPage}, **problems(401, 403)},
)
def list_keys(farm: FarmPart, secret: Secret) -> Response:
    """List the keys."""
    with farm.database.transaction() as session:
        caller = allowed(tenants.authenticate(session, secret), Scope.ADMIN)
        return reply(KeyPage(data=listed(session, caller.tenant_id)))


def listed(session: Session, tenant_id: UUID) -> list[KeyReply]:
    """Every key of a tenant, the newest first."""
    return [KeyReply.model_validate(key, from_attributes=True) for key in tenants.list_keys(session, tenant_id)]


@router.post(
    "",
    operation_id="createKey",
    status_code=201,
    responses={201: {"model": FreshKeyReply}, **problems(400, 401, 403, 413, 415)},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/NewKey"}, "examples": EXAMPLES}},
        }
    },
)
def create_key(farm: FarmPart, creation: Making, body: JsonBody) -> Response:
    """Make a key."""
    with farm.database.transaction() as session:
        caller = creation.begin(session, Scope.ADMIN, body)
        return creation.keep(session, reply(make(session, caller, read(NewKey, parse_json(body))), 201))


def make(session: Session, caller: Caller, asked: NewKey) -> FreshKeyReply:
    """Make a key for the tenant of an admin.

    Raises:
        InvalidField: it would be over before it begins.
        Forbidden: only an operator may give one with these scopes.
    """
    expires_at = future(asked.expires_at, "expiresAt", datetime.now(UTC))
    _may_grant(caller, asked.scopes)
    made = tenants.create_key(session, caller.tenant_id, asked.name, asked.scopes, expires_at, asked.rate_limit)
    return fresh(*made)


@router.post(
    "/{id}/rotate",
    operation_id="rotateKey",
    status_code=201,
    responses={201: {"model": FreshKeyReply}, **problems(400, 401, 403, 404, 409, 413, 415)},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Rotation"}}},
        }
    },
)
def rotate_key(farm: FarmPart, creation: Making, id: UUID, body: JsonBody) -> Response:  # noqa: A002 - as above
    """Make a key like an old one, which works on for a while: put the new one in place, and nothing stands still."""
    with farm.database.transaction() as session:
        caller = creation.begin(session, Scope.ADMIN, body)
        asked = read(Rotation, parse_json(body))
        _may_grant(caller, tenants.read_key(session, caller.tenant_id, id).scopes)
        made = tenants.rotate_key(session, caller.tenant_id, id, timedelta(seconds=asked.grace))
        return creation.keep(session, reply(fresh(*made), 201))


@router.delete(
    "/{id}",
    operation_id="revokeKey",
    status_code=204,
    responses=problems(401, 403, 404),
)
def revoke_key(farm: FarmPart, secret: Secret, id: UUID) -> Response:  # noqa: A002 - the name in the path
    """Revoke a key at once."""
    with farm.database.transaction() as session:
        caller = allowed(tenants.authenticate(session, secret), Scope.ADMIN)
        _may_grant(caller, tenants.read_key(session, caller.tenant_id, id).scopes)
        tenants.revoke_key(session, caller.tenant_id, id)
    return Response(status_code=204)


def fresh(key: ApiKey, text: str) -> FreshKeyReply:
    """A key with its text."""
    shown = KeyReply.model_validate(key, from_attributes=True)
    return FreshKeyReply(**shown.model_dump(), secret=text)


def _may_grant(caller: Caller, scopes: Iterable[str]) -> None:
    """An admin steers every key of the tenant, but never becomes an operator.

    Raises:
        Forbidden: the operator's scope, and the caller has it not.
    """
    if Scope.OPERATOR in scopes and Scope.OPERATOR not in caller.scopes:
        raise Forbidden("Only a key with the scope 'operator' gives, rotates or revokes one that has it.")
