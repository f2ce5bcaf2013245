"""How providers did lately, from the attempts of this farm; and what a tenant spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Date, cast, distinct, func, select, text
from sqlalchemy.orm import Session

from storage.ledger_records import Balance, LedgerEntry
from storage.repository.routes import ITS_FAULT

OWN_FAULT: Final = ("render_failed", "out_of_memory", "device_lost", "model_unavailable", "worker_lost", "poison")

#: the index ix_attempts_started_at (BRIN, as attempts are added in the order of time) finds the window
BOARD: Final = text(
    """
    SELECT provider, CASE provider WHEN 'local' THEN '' ELSE coalesce(model, '') END AS model,
           count(*) FILTER (WHERE status = 'SUCCESS') AS good,
           count(*) FILTER (WHERE error ->> 'code' = ANY (:faults)) AS bad,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM ended_at - started_at))
               FILTER (WHERE status = 'SUCCESS') AS p50,
           percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM ended_at - started_at))
               FILTER (WHERE status = 'SUCCESS') AS p95,
           percentile_cont(0.5) WITHIN GROUP (
               ORDER BY coalesce(timings ->> 'first_byte', timings ->> 'render')::double precision)
               FILTER (WHERE status = 'SUCCESS') AS first_byte,
           sum(cost) FILTER (WHERE status = 'SUCCESS') AS cost,
           coalesce(sum(cardinality(seeds)) FILTER (WHERE status = 'SUCCESS'), 0) AS images
      FROM attempts
     WHERE started_at > now() - make_interval(secs => :seconds) AND ended_at IS NOT NULL AND provider <> 'remote'
     GROUP BY 1, 2
    """
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One provider and model (local workers are one row, without a model); times are seconds, money USD."""

    provider: str
    model: str
    good: int
    bad: int
    p50: float | None
    p95: float | None
    first_byte: float | None
    paid: Decimal | None  #: an image, on average

    @property
    def success(self) -> float | None:
        """Share of the attempts that went well, of those that failed by nobody else's fault."""
        return self.good / (self.good + self.bad) if self.good + self.bad else None


@dataclass(frozen=True, slots=True)
class Spent:
    """What was settled under one name."""

    name: str
    amount: Decimal
    jobs: int


def board(session: Session, seconds: float) -> list[Row]:
    """Everybody who tried anything within the last so many seconds."""
    rows = session.execute(BOARD, {"seconds": seconds, "faults": [*ITS_FAULT, *OWN_FAULT]})
    return [
        Row(
            provider=row.provider,
            model=row.model,
            good=row.good,
            bad=row.bad,
            p50=row.p50,
            p95=row.p95,
            first_byte=row.first_byte,
            paid=row.cost / row.images if row.images and row.cost is not None else None,
        )
        for row in rows
    ]


def by_provider(session: Session, tenant_id: UUID, since: datetime, until: datetime) -> list[Spent]:
    """What each provider was paid."""
    return _spent(session, LedgerEntry.provider, tenant_id, since, until)


def by_campaign(session: Session, tenant_id: UUID, since: datetime, until: datetime) -> list[Spent]:
    """What each campaign cost; the empty name is jobs outside campaigns."""
    return _spent(session, LedgerEntry.campaign, tenant_id, since, until)


def by_day(session: Session, tenant_id: UUID, since: datetime, until: datetime) -> list[Spent]:
    """What each day cost, in UTC."""
    return _spent(session, cast(LedgerEntry.created_at, Date), tenant_id, since, until)


def caps(session: Session, tenant_ids: Sequence[UUID]) -> dict[UUID, Decimal | None]:
    """The budgets of tenants."""
    rows = session.execute(
        select(Balance.tenant_id, Balance.cap).where(Balance.campaign == "", Balance.tenant_id.in_(tenant_ids))
    )
    return dict(rows.all())


def _spent(
    session: Session, what: ColumnElement[object] | object, tenant_id: UUID, since: datetime, until: datetime
) -> list[Spent]:
    named: ColumnElement[object] = what  # type: ignore[assignment]
    rows = session.execute(
        select(named, func.sum(LedgerEntry.amount), func.count(distinct(LedgerEntry.job_uuid)))
        .where(
            LedgerEntry.tenant_id == tenant_id,
            LedgerEntry.kind == "settle",
            LedgerEntry.created_at >= since,
            LedgerEntry.created_at < until,
        )
        .group_by(named)
        .order_by(named)
    )
    return [Spent(str(name), amount, jobs) for name, amount, jobs in rows]
