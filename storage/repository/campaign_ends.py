"""The end of a campaign: told in the very transaction that ends its last job, whichever that is.

Two jobs that end at the same moment do not see each other; so whoever ends one takes the campaign's own lock, last of
all locks, and looks then: the second one sees what the first has committed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from fluxfarm.webhooks import CAMPAIGN_CANCELLED, CAMPAIGN_DONE
from storage.repository import deliveries

LOCK: Final = text(
    """
    SELECT id, pg_advisory_xact_lock(hashtextextended(id::text, 0))
      FROM (SELECT held.id FROM campaigns AS held
              JOIN unnest(CAST(:tenants AS uuid[]), CAST(:names AS text[])) AS ended (tenant_id, name)
                ON held.tenant_id = ended.tenant_id AND held.name = ended.name
             WHERE held.webhook_id IS NOT NULL ORDER BY held.id) AS told
    """
)
TELL: Final = text(
    """
    INSERT INTO webhook_deliveries (id, endpoint_id, campaign_id, type, state, last_error, ended_at)
    SELECT message, endpoint.id, held.id, CASE held.wish WHEN 'cancel' THEN :cancelled ELSE :done END,
           CASE WHEN endpoint.disabled_at IS NULL THEN 'pending' ELSE 'failed' END,
           CASE WHEN endpoint.disabled_at IS NOT NULL THEN 'endpoint_disabled' END,
           CASE WHEN endpoint.disabled_at IS NOT NULL THEN now() END
      FROM unnest(CAST(:ids AS uuid[]), CAST(:messages AS text[])) AS ended (id, message)
      JOIN campaigns AS held ON held.id = ended.id
      JOIN webhook_endpoints AS endpoint ON endpoint.id = held.webhook_id AND endpoint.form = 'standard'
     WHERE NOT EXISTS (SELECT FROM jobs WHERE jobs.tenant_id = held.tenant_id AND jobs.campaign = held.name
                          AND jobs.campaign <> '' AND jobs.status = 'QUEUED')
       AND NOT EXISTS (SELECT FROM jobs WHERE jobs.tenant_id = held.tenant_id AND jobs.campaign = held.name
                          AND jobs.status = 'RUNNING')
       FOR KEY SHARE OF endpoint
    """
)


def tell(session: Session, ended: Iterable[tuple[UUID, str]]) -> None:
    """Jobs of these (tenant, campaign) have ended in this transaction: tell whose last open one it was.

    To be called once in a transaction and last, as what it locks must not be held while something else is waited for.
    """
    held = sorted({one for one in ended if one[1]})
    if not held:
        return
    asked = {"tenants": [tenant_id for tenant_id, _ in held], "names": [name for _, name in held]}
    ids = [row.id for row in session.execute(LOCK, asked)]
    if ids:
        words = {"done": CAMPAIGN_DONE, "cancelled": CAMPAIGN_CANCELLED}
        session.execute(TELL, {"ids": ids, "messages": [deliveries.new_id() for _ in ids], **words})
