"""Tenants and their API keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Integer, bindparam, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fluxfarm.errors import Conflict, NotFound, Unauthorized
from fluxfarm.licences import Permit
from storage import keys
from storage.records import ApiKey, Tenant

UNKNOWN_KEY = "The API key is missing, wrong, expired or revoked; send 'Authorization: Bearer ff_live_…'."


@dataclass(frozen=True, slots=True)
class Caller:
    """Who holds the key that came with a call."""

    id: UUID  #: of the key
    tenant_id: UUID
    scopes: list[str]
    last_used_at: datetime | None
    commercial: bool
    models: list[str] | None

    @property
    def use_is_due(self) -> bool:
        """Whether the use of the key should be noted: once a minute."""
        return self.last_used_at is None or self.last_used_at < datetime.now(UTC) - timedelta(minutes=1)

    @property
    def permit(self) -> Permit:
        """What its tenant may render."""
        return Permit(self.commercial, None if self.models is None else frozenset(self.models))


#: made once: building a statement costs more than sending it, and every call of the API sends one with these parts
CALLER: Final = (ApiKey.id, ApiKey.tenant_id, ApiKey.scopes, ApiKey.last_used_at, Tenant.commercial, Tenant.models)
IS_LIVE: Final = (
    ApiKey.digest == bindparam("digest"),
    ApiKey.revoked_at.is_(None),
    ApiKey.expires_at.is_(None) | (ApiKey.expires_at > func.now()),
)
RATE: Final = (
    select(func.least(ApiKey.rate_limit, func.coalesce(Tenant.rate_limit, bindparam("usual", type_=Integer))))
    .join(Tenant, Tenant.id == ApiKey.tenant_id)
    .where(ApiKey.digest == bindparam("digest"))
)
LIVE_KEY: Final = select(*CALLER).select_from(ApiKey).join(Tenant, Tenant.id == ApiKey.tenant_id).where(*IS_LIVE)


def ensure_tenant(session: Session, name: str) -> Tenant:
    """The tenant of this name, made when it does not exist."""
    session.execute(insert(Tenant).values(name=name).on_conflict_do_nothing(index_elements=["name"]))
    return session.scalars(select(Tenant).where(Tenant.name == name)).one()


def find_tenant(session: Session, name: str) -> Tenant | None:
    """The tenant of this name."""
    return session.scalars(select(Tenant).where(Tenant.name == name)).one_or_none()


def create_key(
    session: Session,
    tenant_id: UUID,
    name: str,
    scopes: Iterable[str],
    expires_at: datetime | None = None,
    rate_limit: int | None = None,
) -> tuple[ApiKey, str]:
    """A new key of the tenant, and its text, of which the row keeps only the digest."""
    secret = keys.make_key()
    key = ApiKey(
        tenant_id=tenant_id,
        name=name,
        prefix=secret[: keys.SHOWN],
        digest=keys.digest(secret),
        scopes=list(dict.fromkeys(str(scope) for scope in scopes)),
        expires_at=expires_at,
        rate_limit=rate_limit,
    )
    session.add(key)
    session.flush()
    session.refresh(key)
    return key, secret


def authenticate(session: Session, secret: str | None) -> Caller:
    """Who calls; notes the use of the key once a minute.

    Raises:
        Unauthorized: missing, misspelt, unknown, expired or revoked.
    """
    if not secret or not keys.is_well_formed(secret):
        raise Unauthorized(UNKNOWN_KEY)
    caller = known(session.execute(LIVE_KEY, {"digest": keys.digest(secret)}).one_or_none())
    if caller.use_is_due:
        note_use(session, caller.id)
    return caller


def known(found: Sequence[Any] | None) -> Caller:
    """Who calls, from the columns ``CALLER`` of a live key; for statements that ask for more than the key.

    Raises:
        Unauthorized: there is none.
    """
    if found is None:
        raise Unauthorized(UNKNOWN_KEY)
    return Caller(*found)


def rate_limit(session: Session, digest: bytes, usual: int | None) -> int | None:
    """Calls a minute of the key: the tenant's or the ``usual`` ones, or the key's own if they are fewer.

    None: no limit, or no such key.
    """
    return session.scalar(RATE, {"digest": digest, "usual": usual})


def note_use(session: Session, key_id: UUID) -> None:
    """Keep the time of the last use, to the minute; a key under load costs one write a minute."""
    session.execute(
        update(ApiKey)
        .where(
            ApiKey.id == key_id,
            func.coalesce(ApiKey.last_used_at, text("'-infinity'")) < func.now() - text("interval '1 minute'"),
        )
        .values(last_used_at=func.now())
    )


def list_keys(session: Session, tenant_id: UUID) -> list[ApiKey]:
    """Every key of the tenant, the newest first."""
    return list(session.scalars(select(ApiKey).where(ApiKey.tenant_id == tenant_id).order_by(ApiKey.created_at.desc())))


def read_key(session: Session, tenant_id: UUID, key_id: UUID) -> ApiKey:
    """A key of the tenant.

    Raises:
        NotFound: no such key of this tenant.
    """
    key = session.scalars(select(ApiKey).where(ApiKey.tenant_id == tenant_id, ApiKey.id == key_id)).one_or_none()
    if key is None:
        raise NotFound(f"There is no key {key_id}.")
    return key


def revoke_key(session: Session, tenant_id: UUID, key_id: UUID) -> ApiKey:
    """Stop a key at once.

    Raises:
        NotFound: no such key of this tenant.
    """
    key = read_key(session, tenant_id, key_id)
    if key.revoked_at is None:
        session.execute(update(ApiKey).where(ApiKey.id == key_id).values(revoked_at=func.now()))
        session.refresh(key)
    return key


def rotate_key(session: Session, tenant_id: UUID, key_id: UUID, grace: timedelta) -> tuple[ApiKey, str]:
    """A new key with the name, scopes and limits of an old one, and its text; the old one works for ``grace`` more.

    A key with an end gets a successor that lives as long as it was meant to.

    Raises:
        NotFound: no such key of this tenant.
        Conflict: it is revoked, expired or was rotated before.
    """
    old = session.scalars(
        select(ApiKey).where(ApiKey.tenant_id == tenant_id, ApiKey.id == key_id).with_for_update()
    ).one_or_none()
    if old is None:
        raise NotFound(f"There is no key {key_id}.")
    now: datetime = session.scalar(select(func.now()))  # type: ignore[assignment]
    if old.replaced_by is not None:
        raise Conflict(f"Key {key_id} was rotated before; rotate {old.replaced_by} instead.")
    if old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= now):
        raise Conflict(f"Key {key_id} is over; make a new one.")
    end = None if old.expires_at is None else now + (old.expires_at - old.created_at)
    key, secret = create_key(session, tenant_id, old.name, old.scopes, end, old.rate_limit)
    last = now + grace
    old.replaced_by, old.expires_at = key.id, last if old.expires_at is None else min(last, old.expires_at)
    session.flush()
    return key, secret
