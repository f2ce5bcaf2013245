"""The ledger's one rule: every balance is the sum of its entries, and a job that is over holds nothing."""

from __future__ import annotations

from sqlalchemy import text

from storage.database import Database

WRONG_BALANCES = text(
    """
    WITH summed AS (
        SELECT tenant_id, scope,
               sum(CASE kind WHEN 'reserve' THEN amount WHEN 'release' THEN -amount ELSE 0 END) AS reserved,
               sum(CASE kind WHEN 'settle' THEN amount ELSE 0 END) AS spent
          FROM ledger_entries CROSS JOIN LATERAL
               unnest(CASE campaign WHEN '' THEN ARRAY[''] ELSE ARRAY['', campaign] END) AS scope
         GROUP BY tenant_id, scope
    )
    SELECT coalesce(balance.campaign, summed.scope), balance.reserved, summed.reserved, balance.spent, summed.spent
      FROM balances AS balance
      FULL JOIN summed ON summed.tenant_id = balance.tenant_id AND summed.scope = balance.campaign
     WHERE (coalesce(balance.reserved, 0), coalesce(balance.spent, 0))
           IS DISTINCT FROM (coalesce(summed.reserved, 0), coalesce(summed.spent, 0))
    """
)
LEFT_OPEN = text(
    """
    SELECT job_uuid FROM ledger_entries LEFT JOIN jobs ON jobs.uuid = job_uuid
     WHERE jobs.status IN ('SUCCESS', 'FAILED', 'CANCELED')
     GROUP BY job_uuid
    HAVING sum(CASE kind WHEN 'reserve' THEN amount WHEN 'release' THEN -amount ELSE 0 END) <> 0
    """
)
WRONG_COSTS = text(
    """
    SELECT jobs.uuid, jobs.cost, sum(amount) FILTER (WHERE kind = 'settle')
      FROM jobs JOIN ledger_entries ON job_uuid = jobs.uuid GROUP BY jobs.uuid
    HAVING jobs.cost <> coalesce(sum(amount) FILTER (WHERE kind = 'settle'), 0)
    """
)


def assert_balanced(database: Database) -> None:
    """Every balance is the sum of its entries, jobs that are over hold nothing, a job's cost is what was settled."""
    with database.transaction() as session:
        assert session.execute(WRONG_BALANCES).all() == []
        assert session.execute(LEFT_OPEN).all() == []
        assert session.execute(WRONG_COSTS).all() == []
