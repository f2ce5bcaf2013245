"""Webhook endpoints and their log, as their owners see them. Each query takes the tenant."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fluxfarm.errors import Conflict, InvalidField, NotFound
from fluxfarm.webhooks import STANDARD, TEST_EVENT, Form, Telling
from storage.keys import random_id
from storage.repository import deliveries
from storage.webhook_records import Delivery, Endpoint

PREFIX: Final = "wh_"  #: of ids
MAX_ENDPOINTS: Final = 1000  #: of one tenant
OVERLAP: Final = timedelta(hours=24)  #: that a replaced secret signs on
MAX_SECRETS: Final = 4  #: that sign at once: each adds a signature to a header
SIGNED_BY: Final = {
    Form.FAL: "the farm's key signs, and /.well-known/jwks.json shows it",
    Form.REPLICATE: "/replicate/v1/webhooks/default/secret shows the one that signs",
}


@dataclass(frozen=True, slots=True)
class Page:
    """Some deliveries, the newest first, and where the next page starts."""

    deliveries: list[Delivery]
    next_before: int | None = field(default=None)


def _owned(tenant_id: UUID, endpoint_id: str) -> Select[Endpoint]:
    return select(Endpoint).where(Endpoint.tenant_id == tenant_id, Endpoint.id == endpoint_id)


def find(session: Session, tenant_id: UUID, url: str, telling: Telling = STANDARD) -> Endpoint | None:
    """The tenant's endpoint at this URL that is told so."""
    return session.scalars(
        select(Endpoint).where(
            Endpoint.tenant_id == tenant_id,
            Endpoint.url == url,
            Endpoint.form == telling.form,
            Endpoint.moments == list(telling.moments),
        )
    ).one_or_none()


def resolve(session: Session, tenant_id: UUID, target: str, telling: Telling = STANDARD) -> str | None:
    """The id of the endpoint that a job names by its id, or by its URL and how it is told; None: a URL that is new.

    Raises:
        InvalidField: no endpoint of the tenant has this id.
    """
    if not target.startswith(PREFIX):
        known = find(session, tenant_id, target, telling)
        return None if known is None else known.id
    found = session.scalar(select(Endpoint.id).where(Endpoint.tenant_id == tenant_id, Endpoint.id == target))
    if found is None:
        message = f"There is no webhook {target[:60]!r}; POST /v1/webhooks makes one, or give its URL here."
        raise InvalidField(message, param="webhook")
    return found


def create(session: Session, tenant_id: UUID, url: str, sealed: str) -> Endpoint:
    """A new endpoint with its first secret.

    Raises:
        Conflict: the tenant has one at this URL, or as many as it may have.
    """
    endpoint, made = find_or_create(session, tenant_id, url, sealed)
    if not made:
        raise Conflict(f"{endpoint.id} is the endpoint of this URL already; delete it first, or use it.")
    return endpoint


def find_or_create(
    session: Session, tenant_id: UUID, url: str, sealed: str, telling: Telling = STANDARD
) -> tuple[Endpoint, bool]:
    """The endpoint at this URL that is told so, and whether it was made now; only the standard form has a secret.

    Raises:
        Conflict: the tenant has as many as it may have.
    """
    found = find(session, tenant_id, url, telling)
    if found is not None:
        return found, False
    count = session.scalar(select(func.count()).select_from(Endpoint).where(Endpoint.tenant_id == tenant_id))
    if (count or 0) >= MAX_ENDPOINTS:
        message = f"There are {MAX_ENDPOINTS:,} webhook endpoints, as many as there may be; one URL serves all jobs."
        raise Conflict(message)
    fresh = random_id(PREFIX)
    session.execute(
        insert(Endpoint)
        .values(
            id=fresh,
            tenant_id=tenant_id,
            url=url,
            form=telling.form,
            moments=list(telling.moments),
            secrets=[_entry(sealed)] if telling.form is Form.STANDARD else [],
        )
        .on_conflict_do_nothing(index_elements=["tenant_id", "url", "form", "moments"])
    )
    kept = find(session, tenant_id, url, telling)
    assert kept is not None
    return kept, kept.id == fresh


def resolve_or_create(session: Session, tenant_id: UUID, target: str, sealed: str, telling: Telling = STANDARD) -> str:
    """As ``resolve``, but a URL that is new becomes an endpoint with this secret.

    Raises:
        InvalidField: no endpoint of the tenant has this id.
        Conflict: the tenant has as many as it may have.
    """
    known = resolve(session, tenant_id, target, telling)
    return find_or_create(session, tenant_id, target, sealed, telling)[0].id if known is None else known


def read(session: Session, tenant_id: UUID, endpoint_id: str) -> Endpoint:
    """The tenant's endpoint.

    Raises:
        NotFound: no such endpoint, or somebody else's.
    """
    return _one(session, _owned(tenant_id, endpoint_id), endpoint_id)


def list_all(session: Session, tenant_id: UUID) -> list[Endpoint]:
    """Every endpoint of the tenant, the newest first."""
    query = select(Endpoint).where(Endpoint.tenant_id == tenant_id)
    return list(session.scalars(query.order_by(Endpoint.created_at.desc(), Endpoint.id)))


def remove(session: Session, tenant_id: UUID, endpoint_id: str) -> None:
    """Forget the endpoint with its secrets and its log; nothing is sent to it any more.

    Raises:
        NotFound: no such endpoint, or somebody else's.
    """
    gone = session.execute(
        delete(Endpoint).where(Endpoint.tenant_id == tenant_id, Endpoint.id == endpoint_id).returning(Endpoint.id)
    ).one_or_none()
    if gone is None:
        raise _missing(endpoint_id)


def rotate(session: Session, tenant_id: UUID, endpoint_id: str, sealed: str) -> Endpoint:
    """Sign with a new secret, and beside it for 24 hours with the old ones.

    Raises:
        NotFound: no such endpoint, or somebody else's.
        Conflict: its messages are not signed with a secret of its own.
    """
    endpoint = _lock(session, tenant_id, endpoint_id)
    check_own_secret(endpoint)
    now = session.scalars(select(func.now())).one()
    old = [
        {**secret, "expires_at": _earlier(secret["expires_at"], now + OVERLAP)}
        for secret in live(endpoint.secrets, now)
    ]
    endpoint.secrets = [_entry(sealed), *old][:MAX_SECRETS]
    session.flush()
    return endpoint


def check_own_secret(endpoint: Endpoint) -> None:
    """Refuse an endpoint without a secret of its own.

    Raises:
        Conflict: the message says what signs instead.
    """
    if endpoint.form != Form.STANDARD:
        raise Conflict(f"{endpoint.id} has no secret of its own; {SIGNED_BY[Form(endpoint.form)]}.")


def live(secrets: list[dict[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """The secrets that sign now, the newest first."""
    return [one for one in secrets if one["expires_at"] is None or datetime.fromisoformat(one["expires_at"]) > now]


def enable(session: Session, tenant_id: UUID, endpoint_id: str) -> Endpoint:
    """Let a disabled endpoint be sent to again; what failed meanwhile is sent by a replay only.

    Raises:
        NotFound: no such endpoint, or somebody else's.
    """
    endpoint = _lock(session, tenant_id, endpoint_id)
    endpoint.disabled_at = endpoint.disabled_reason = endpoint.paused_until = None
    session.flush()
    return endpoint


def lock(session: Session, endpoint_id: str) -> None:
    """Hold the endpoint before its deliveries, as everybody does. For the sender."""
    session.execute(select(Endpoint.id).where(Endpoint.id == endpoint_id).with_for_update(key_share=True))


def disable(session: Session, endpoint_id: str, reason: str) -> None:
    """Send nothing more to it; what waits has failed. For the sender."""
    session.execute(
        update(Endpoint)
        .where(Endpoint.id == endpoint_id, Endpoint.disabled_at.is_(None))
        .values(disabled_at=func.now(), disabled_reason=reason)
    )
    session.execute(
        update(Delivery)
        .where(Delivery.endpoint_id == endpoint_id, Delivery.state == "pending")
        .values(state="failed", last_error=deliveries.DISABLED, ended_at=func.now(), lease_expires_at=None)
    )


def send_test(session: Session, tenant_id: UUID, endpoint_id: str) -> Delivery:
    """Write a ``test`` event for the endpoint.

    Raises:
        NotFound: no such endpoint, or somebody else's.
        Conflict: it is disabled.
    """
    endpoint = _lock(session, tenant_id, endpoint_id)
    _check_enabled(endpoint)
    endpoint.paused_until = None
    delivery = Delivery(id=deliveries.new_id(), endpoint_id=endpoint.id, type=TEST_EVENT, log=[])
    session.add(delivery)
    session.flush()
    session.refresh(delivery)
    return delivery


def list_deliveries(
    session: Session, tenant_id: UUID, endpoint_id: str, *, state: str | None, before: int | None, limit: int
) -> Page:
    """At most ``limit`` deliveries of the endpoint that are older than ``before``, with their attempts.

    Raises:
        NotFound: no such endpoint, or somebody else's.
    """
    read(session, tenant_id, endpoint_id)
    query = select(Delivery).where(Delivery.endpoint_id == endpoint_id).order_by(Delivery.seq.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(Delivery.seq < before)
    if state is not None:
        query = query.where(Delivery.state == state)
    found = list(session.scalars(query))
    return Page(found[:limit], found[limit - 1].seq if len(found) > limit else None)


def replay(session: Session, tenant_id: UUID, delivery_id: str) -> Delivery:
    """Send it again now, under the same id and with the whole schedule before it.

    Raises:
        NotFound: no such delivery, or somebody else's.
        Conflict: its endpoint is disabled.
    """
    endpoint_id = session.scalar(
        select(Endpoint.id)
        .join(Delivery, Delivery.endpoint_id == Endpoint.id)
        .where(Endpoint.tenant_id == tenant_id, Delivery.id == delivery_id)
    )
    if endpoint_id is None:
        raise NotFound(f"There is no delivery {delivery_id[:60]}.")
    endpoint = _lock(session, tenant_id, endpoint_id)  # before its delivery, as everybody does
    _check_enabled(endpoint)
    endpoint.paused_until = None
    delivery = session.scalars(
        update(Delivery)
        .where(Delivery.id == delivery_id)
        .values(state="pending", tries=0, next_attempt_at=func.now(), ticketed_at=None, ended_at=None)
        .returning(Delivery)
    ).one_or_none()
    if delivery is None:
        raise NotFound(f"There is no delivery {delivery_id[:60]}.")
    return delivery


def _one(session: Session, query: Select[Endpoint], endpoint_id: str) -> Endpoint:
    found = session.scalars(query).one_or_none()
    if found is None:
        raise _missing(endpoint_id)
    return found


def _lock(session: Session, tenant_id: UUID, endpoint_id: str) -> Endpoint:
    """Read it to change it; the ends of jobs, which refer to it, need not wait for that."""
    return _one(session, _owned(tenant_id, endpoint_id).with_for_update(key_share=True), endpoint_id)


def _missing(endpoint_id: str) -> NotFound:
    return NotFound(f"There is no webhook {endpoint_id[:60]}.")


def _check_enabled(endpoint: Endpoint) -> None:
    if endpoint.disabled_at is not None:
        raise Conflict(f"{endpoint.id} is disabled ({endpoint.disabled_reason}); enable it first.")


def _entry(sealed: str) -> dict[str, Any]:
    return {"sealed": sealed, "created_at": datetime.now(UTC).isoformat(), "expires_at": None}


def _earlier(known: str | None, limit: datetime) -> str:
    return limit.isoformat() if known is None else min(datetime.fromisoformat(known), limit).isoformat()
