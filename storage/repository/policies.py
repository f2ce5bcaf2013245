"""Tenants as the operator sees them: their share, caps, permit and retention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from fluxfarm.errors import Conflict, NotFound
from storage.records import Tenant


def list_all(session: Session) -> list[Tenant]:
    """Every tenant, by name."""
    return list(session.scalars(select(Tenant).order_by(Tenant.name)))


def read(session: Session, tenant_id: UUID) -> Tenant:
    """One tenant.

    Raises:
        NotFound: there is none of this id.
    """
    tenant = session.get(Tenant, tenant_id)
    if tenant is None:
        raise NotFound(f"There is no tenant {tenant_id}.")
    return tenant


def create(session: Session, values: Mapping[str, Any]) -> Tenant:
    """A new tenant with these columns.

    Raises:
        Conflict: another one has the name.
    """
    tenant = Tenant(**values)
    try:
        with session.begin_nested():
            session.add(tenant)
            session.flush()
    except IntegrityError as error:
        if "uq_tenants_name" not in str(error.orig):
            raise
        raise Conflict("Another tenant has this name.", param="name") from None
    session.refresh(tenant)
    return tenant


def change(session: Session, tenant_id: UUID, values: Mapping[str, Any]) -> Tenant:
    """Set these columns; what runs already is not stopped.

    Raises:
        NotFound: there is none of this id.
    """
    tenant = read(session, tenant_id)
    for name, value in values.items():
        setattr(tenant, name, value)
    session.flush()
    return tenant


@dataclass(frozen=True, slots=True)
class SafetyRules:
    """What a tenant's jobs are checked for; ``mode`` None is the farm's."""

    mode: str | None = None
    deny: tuple[str, ...] = ()
    may_disable: bool = False


def safety(session: Session, tenant_id: UUID) -> SafetyRules:
    """The rules of a tenant; those of one that was just deleted are the farm's."""
    query = select(Tenant.safety, Tenant.deny, Tenant.may_disable_safety).where(Tenant.id == tenant_id)
    found = session.execute(query).one_or_none()
    return SafetyRules() if found is None else SafetyRules(found[0], tuple(found[1]), found[2])
