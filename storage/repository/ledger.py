"""Money: reserved before anything is spent, settled or given back at the end. Entries are only ever added.

A balance is the sum of its entries: ``reserved`` is what was reserved and not released, ``spent`` what was settled. The
balance of the tenant as a whole has the empty campaign's name; a job of a campaign counts in both. Rows are locked in
one order, the tenant before its campaigns, so that no two calls wait for each other. Amounts are USD.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fluxfarm.errors import BudgetExceeded
from storage.ledger_records import Balance, LedgerEntry

TENANT: Final = ""  #: the campaign's name in the balance of the tenant as a whole

#: the guard against overspending: a balance that has no room is not updated, and is missing from the answer
RESERVE: Final = text(
    """
    WITH asked AS (
        SELECT CAST(key AS uuid) AS job_uuid, CAST(value AS numeric) AS amount
          FROM jsonb_each_text(CAST(:amounts AS jsonb)) WHERE CAST(value AS numeric) > 0
    ),
    entered AS (
        INSERT INTO ledger_entries (tenant_id, campaign, job_uuid, kind, amount)
        SELECT :tenant_id, :campaign, job_uuid, 'reserve', amount FROM asked
    )
    INSERT INTO balances AS balance (tenant_id, campaign, reserved)
    SELECT CAST(:tenant_id AS uuid), scope, (SELECT sum(amount) FROM asked)
      FROM unnest(CAST(:scopes AS text[])) AS scope ORDER BY scope
    ON CONFLICT (tenant_id, campaign) DO UPDATE SET reserved = balance.reserved + excluded.reserved
     WHERE balance.cap IS NULL OR balance.spent + balance.reserved + excluded.reserved <= balance.cap
    RETURNING balance.campaign
    """
)
LOCK: Final = text(
    """
    SELECT balance.tenant_id FROM balances AS balance
     WHERE (balance.tenant_id, balance.campaign) IN (
           SELECT entry.tenant_id, scope
             FROM ledger_entries AS entry CROSS JOIN LATERAL unnest(ARRAY['', entry.campaign]) AS scope
            WHERE entry.job_uuid = ANY (:jobs))
     ORDER BY balance.tenant_id, balance.campaign
       FOR UPDATE
    """
)
#: what a job has reserved, but for what an open call may still cost
RELEASE: Final = text(
    """
    WITH bound AS (
        SELECT job_uuid, sum(price) AS price FROM remote_calls
         WHERE job_uuid = ANY (:jobs) AND state IN ('intended', 'submitted') GROUP BY job_uuid
    ),
    outstanding AS (
        SELECT tenant_id, campaign, job_uuid,
               sum(CASE kind WHEN 'reserve' THEN amount WHEN 'release' THEN -amount ELSE 0 END)
                   - coalesce(max(bound.price), 0) AS amount
          FROM ledger_entries LEFT JOIN bound USING (job_uuid)
         WHERE job_uuid = ANY (:jobs) GROUP BY tenant_id, campaign, job_uuid
    ),
    entered AS (
        INSERT INTO ledger_entries (tenant_id, campaign, job_uuid, kind, amount)
        SELECT tenant_id, campaign, job_uuid, 'release', amount FROM outstanding WHERE amount > 0
    ),
    total AS (
        SELECT tenant_id, scope, sum(amount) AS amount
          FROM outstanding CROSS JOIN LATERAL
               unnest(CASE campaign WHEN '' THEN ARRAY[''] ELSE ARRAY['', campaign] END) AS scope
         WHERE amount > 0 GROUP BY tenant_id, scope
    )
    UPDATE balances AS balance SET reserved = balance.reserved - total.amount
      FROM total WHERE balance.tenant_id = total.tenant_id AND balance.campaign = total.scope
    """
)
GIVE_BACK: Final = text(
    """
    WITH entered AS (
        INSERT INTO ledger_entries (tenant_id, campaign, job_uuid, kind, amount)
        VALUES (:tenant_id, :campaign, :job, 'release', :amount)
    ),
    locked AS (
        SELECT campaign FROM balances WHERE tenant_id = :tenant_id AND campaign = ANY (CAST(:scopes AS text[]))
         ORDER BY campaign FOR UPDATE
    )
    UPDATE balances AS balance SET reserved = balance.reserved - :amount
      FROM locked WHERE balance.tenant_id = :tenant_id AND balance.campaign = locked.campaign
    """
)
SETTLE: Final = text(
    """
    WITH entered AS (
        INSERT INTO ledger_entries (tenant_id, campaign, job_uuid, kind, amount, provider)
        VALUES (:tenant_id, :campaign, :job, 'settle', :amount, :provider)
    )
    INSERT INTO balances AS balance (tenant_id, campaign, spent)
    SELECT CAST(:tenant_id AS uuid), scope, :amount FROM unnest(CAST(:scopes AS text[])) AS scope ORDER BY scope
    ON CONFLICT (tenant_id, campaign) DO UPDATE SET spent = balance.spent + excluded.spent
    """
)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a tenant or a campaign stands, in USD; ``cap`` None is no limit."""

    cap: Decimal | None
    reserved: Decimal
    spent: Decimal

    @property
    def left(self) -> Decimal | None:
        """What may still be reserved; never below nothing."""
        return None if self.cap is None else max(Decimal(0), self.cap - self.reserved - self.spent)


def reserve(session: Session, tenant_id: UUID, campaign: str, job: UUID, amount: Decimal) -> None:
    """Reserve what a job is estimated at, in the tenant's balance and its campaign's. Nothing is done for 0.

    Raises:
        BudgetExceeded: a cap has no room for it; the caller rolls back to where it was before.
    """
    reserve_many(session, tenant_id, campaign, {job: amount})


def reserve_many(session: Session, tenant_id: UUID, campaign: str, amounts: Mapping[UUID, Decimal]) -> None:
    """The same for many jobs at once: all or none, in one round trip."""
    if not any(amounts.values()):
        return
    scopes = _scopes(campaign)
    asked = json.dumps({str(job): str(amount) for job, amount in amounts.items()})
    parameters = {"tenant_id": tenant_id, "campaign": campaign, "scopes": scopes, "amounts": asked}
    had_room = set(session.scalars(RESERVE, parameters))
    for scope in scopes:
        if scope not in had_room:
            raise _exceeded(standing(session, tenant_id, scope), scope, sum(amounts.values(), Decimal(0)))


def settle(session: Session, tenant_id: UUID, campaign: str, job: UUID, cost: Decimal, provider: str = "") -> None:
    """Note what was really paid, whatever was reserved; nothing is done for 0."""
    if cost > 0:
        parameters = {"tenant_id": tenant_id, "campaign": campaign, "job": job, "provider": provider}
        session.execute(SETTLE, parameters | {"amount": cost, "scopes": _scopes(campaign)})


def close(session: Session, *jobs: UUID) -> None:
    """Give back what jobs that are over have still reserved, but for what their open calls may cost.

    Safe to repeat. One round trip for jobs without money.
    """
    if session.execute(LOCK, {"jobs": list(jobs)}).all():
        session.execute(RELEASE, {"jobs": list(jobs)})  # a statement of its own: it sees what the lock waited for


def reserved(session: Session, job: UUID) -> Decimal:
    """What the job has reserved and not given back."""
    rows = session.execute(
        select(LedgerEntry.kind, func.sum(LedgerEntry.amount))
        .where(LedgerEntry.job_uuid == job)
        .group_by(LedgerEntry.kind)
    )
    sums: dict[str, Decimal] = dict(rows.all())
    return sums.get("reserve", Decimal(0)) - sums.get("release", Decimal(0))


def campaign_of(session: Session, job: UUID) -> str:
    """The campaign that a job's money counts in, also after the job was erased."""
    return session.scalar(select(LedgerEntry.campaign).where(LedgerEntry.job_uuid == job).limit(1)) or TENANT


def adjust(session: Session, tenant_id: UUID, campaign: str, job: UUID, wanted: Decimal) -> None:
    """Reserve more, or give some back, until the job has exactly ``wanted`` reserved; by its one holder only.

    Raises:
        BudgetExceeded: as ``reserve``.
    """
    difference = wanted - reserved(session, job)
    if difference > 0:
        reserve(session, tenant_id, campaign, job, difference)
    elif difference < 0:
        parameters = {"tenant_id": tenant_id, "campaign": campaign, "job": job, "amount": -difference}
        session.execute(GIVE_BACK, parameters | {"scopes": _scopes(campaign)})


def afford(session: Session, tenant_id: UUID, campaign: str, job: UUID, wanted: Decimal) -> BudgetExceeded | None:
    """``adjust``, or why a budget has no room for it; then nothing has changed."""
    try:
        with session.begin_nested():
            adjust(session, tenant_id, campaign, job, wanted)
    except BudgetExceeded as error:
        return error
    return None


def standing(session: Session, tenant_id: UUID, campaign: str = TENANT) -> Standing:
    """Where the tenant, or one of its campaigns, stands."""
    row = session.execute(
        select(Balance.cap, Balance.reserved, Balance.spent).where(
            Balance.tenant_id == tenant_id, Balance.campaign == campaign
        )
    ).one_or_none()
    return Standing(None, Decimal(0), Decimal(0)) if row is None else Standing(*row)


def set_cap(session: Session, tenant_id: UUID, campaign: str, cap: Decimal | None) -> Standing:
    """Set or lift a budget; what is reserved or spent beyond a lower one stays, and nothing more is accepted."""
    new = insert(Balance).values(tenant_id=tenant_id, campaign=campaign, cap=cap)
    session.execute(new.on_conflict_do_update(index_elements=["tenant_id", "campaign"], set_={"cap": cap}))
    return standing(session, tenant_id, campaign)


def _scopes(campaign: str) -> list[str]:
    return [TENANT] if campaign == TENANT else [TENANT, campaign]


def _exceeded(found: Standing, scope: str, amount: Decimal) -> BudgetExceeded:
    whose = "The budget" if scope == TENANT else f"The budget of campaign {scope!r}"
    return BudgetExceeded(
        f"{whose} has {_usd(found.left)} USD left of {_usd(found.cap)}, and this is estimated at {_usd(amount)} USD."
    )


def _usd(amount: Any) -> str:
    return f"{amount or Decimal(0):.6f}".rstrip("0").rstrip(".")
