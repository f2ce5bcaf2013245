"""Tenants' own keys at providers: sealed when they come, opened only by the worker that calls."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fluxfarm.errors import NotFound
from storage.remote_records import ProviderAccount

OPERATOR = "operator"  #: the account whose key is in the settings


@dataclass(frozen=True, slots=True)
class OwnKey:
    """What may be shown of a key."""

    provider: str
    hint: str
    account_id: str
    version: int
    created_at: datetime
    changed_at: datetime


def own_account(tenant_id: UUID) -> str:
    """The name of a tenant's account, for breakers and calls."""
    return str(tenant_id)


def put(session: Session, tenant_id: UUID, provider: str, sealed: str, hint: str, account_id: str) -> OwnKey:
    """Keep a key, in the place of the one before."""
    new = insert(ProviderAccount).values(
        tenant_id=tenant_id, provider=provider, sealed=sealed, hint=hint, account_id=account_id
    )
    session.execute(
        new.on_conflict_do_update(
            index_elements=["tenant_id", "provider"],
            set_={
                "sealed": sealed,
                "hint": hint,
                "account_id": account_id,
                "version": ProviderAccount.version + 1,
                "changed_at": func.now(),
            },
        )
    )
    return read(session, tenant_id, provider)


def read(session: Session, tenant_id: UUID, provider: str) -> OwnKey:
    """What may be shown of the tenant's key.

    Raises:
        NotFound: it has none there.
    """
    own = (ProviderAccount.tenant_id == tenant_id, ProviderAccount.provider == provider)
    columns = (
        ProviderAccount.provider,
        ProviderAccount.hint,
        ProviderAccount.account_id,
        ProviderAccount.version,
        ProviderAccount.created_at,
        ProviderAccount.changed_at,
    )
    row = session.execute(select(*columns).where(*own)).one_or_none()
    if row is None:
        raise NotFound(f"You have no key of your own at {provider}.")
    return OwnKey(*row)


def names(session: Session, tenant_id: UUID) -> frozenset[str]:
    """The providers at which the tenant has a key of its own."""
    return frozenset(session.scalars(select(ProviderAccount.provider).where(ProviderAccount.tenant_id == tenant_id)))


def sealed(session: Session, tenant_id: UUID, provider: str) -> tuple[str, str] | None:
    """The sealed key and the account id; None: there is none."""
    own = (ProviderAccount.tenant_id == tenant_id, ProviderAccount.provider == provider)
    row = session.execute(select(ProviderAccount.sealed, ProviderAccount.account_id).where(*own)).one_or_none()
    return None if row is None else (row.sealed, row.account_id)


def remove(session: Session, tenant_id: UUID, provider: str) -> None:
    """Forget a key; calls that run with it are lost to the farm.

    Raises:
        NotFound: there is none.
    """
    own = (ProviderAccount.tenant_id == tenant_id, ProviderAccount.provider == provider)
    gone = session.execute(delete(ProviderAccount).where(*own).returning(ProviderAccount.provider)).one_or_none()
    if gone is None:
        raise NotFound(f"You have no key of your own at {provider}.")
