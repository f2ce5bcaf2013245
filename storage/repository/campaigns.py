"""Campaigns as their owners see them: create, find, list, steer. Each query takes the tenant."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import delete, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fluxfarm.airecord import Problem
from fluxfarm.errors import Conflict, NotFound
from fluxfarm.jobs import JobState
from storage.campaign_records import Campaign
from storage.repository import campaign_ends, deliveries, events, ledger
from storage.repository.events import JOB_CHANGED

Wish = Literal["wait", "run", "pause", "cancel"]

TOTALS: Final = text(
    """
    SELECT coalesce(sum(gpu_seconds * (1 - step::float / greatest(steps, 1)))
                    FILTER (WHERE status IN ('QUEUED', 'RUNNING')), 0) AS gpu_seconds_left,
           count(*) FILTER (WHERE status = 'SUCCESS' AND finished_at > now() - interval '1 minute') AS last_minute,
           count(*) FILTER (WHERE status IN ('QUEUED', 'RUNNING')) AS open,
           min(started_at) AS started_at, max(finished_at) AS finished_at, max(queue) AS queue
      FROM jobs WHERE tenant_id = :tenant_id AND campaign = :name
    """
)
CANCEL: Final = text(
    """
    WITH ended AS (
        UPDATE jobs SET status = 'CANCELED', finished_at = now(), error = CAST(:error AS jsonb), dispatched_at = NULL
         WHERE tenant_id = :tenant_id AND campaign = :name AND campaign <> '' AND status = 'QUEUED'
        RETURNING uuid, webhook_id
    ),
    told AS (
        INSERT INTO events (job_uuid, kind, payload)
        SELECT uuid, 'status', jsonb_build_object('status', 'CANCELED', 'error', CAST(:error AS jsonb)) FROM ended
    )
    SELECT uuid, webhook_id, pg_notify(:channel, uuid::text) FROM ended
    """
)
ERASE: Final = text(
    """
    WITH gone AS (
        DELETE FROM jobs WHERE tenant_id = :tenant_id AND campaign = :name AND campaign <> ''
        RETURNING uuid, tenant_id, status
    ),
    noted AS (
        INSERT INTO erasures (job_uuid, tenant_id) SELECT uuid, tenant_id FROM gone ON CONFLICT DO NOTHING
    )
    SELECT uuid, status FROM gone
    """
)
PARK: Final = text(
    """
    UPDATE jobs SET dispatched_at = NULL
      FROM campaigns AS held
     WHERE jobs.status = 'QUEUED' AND jobs.dispatched_at IS NOT NULL AND jobs.campaign <> ''
       AND held.tenant_id = jobs.tenant_id AND held.name = jobs.campaign AND held.wish <> 'run'
    """
)
#: where jobs that were running when their campaign was canceled have come back to the queue
STRAGGLERS: Final = text(
    """
    SELECT tenant_id, name FROM campaigns AS held
     WHERE wish = 'cancel'
       AND EXISTS (SELECT FROM jobs WHERE jobs.tenant_id = held.tenant_id AND jobs.campaign = held.name
                                      AND jobs.campaign <> '' AND jobs.status = 'QUEUED')
     UNION ALL
    SELECT tenant_id, id AS name FROM batches AS held
     WHERE cancelled_at IS NOT NULL
       AND EXISTS (SELECT FROM jobs WHERE jobs.tenant_id = held.tenant_id AND jobs.campaign = held.id
                                      AND jobs.campaign <> '' AND jobs.status = 'QUEUED')
    """
)


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over all jobs of a campaign, retries and regenerations too."""

    gpu_seconds_left: float
    last_minute: int  #: pictures finished in it
    open: int
    started_at: datetime | None
    finished_at: datetime | None
    queue: str | None


def create(session: Session, new: Campaign) -> bool:
    """Store a campaign; False: the tenant has one of this name, which may have been made this moment."""
    columns = {
        column.key: getattr(new, column.key) for column in Campaign.__table__.columns if column.key != "created_at"
    }
    statement = insert(Campaign).values(columns).on_conflict_do_nothing(index_elements=["tenant_id", "name"])
    return session.scalar(statement.returning(Campaign.id)) is not None


def find(session: Session, tenant_id: UUID, name: str) -> Campaign | None:
    """The tenant's campaign of this name, or with this id."""
    if "\0" in name:  # which no text of the database holds
        return None
    query = select(Campaign).where(Campaign.tenant_id == tenant_id)
    try:
        query = query.where(Campaign.id == UUID(name))
    except ValueError:
        query = query.where(Campaign.name == name)
    return session.scalars(query).one_or_none()


def read(session: Session, tenant_id: UUID, name: str) -> Campaign:
    """The same.

    Raises:
        NotFound: no such campaign, or somebody else's.
    """
    found = find(session, tenant_id, name)
    if found is None:
        raise NotFound("There is no such campaign; GET /v1/campaigns lists them.")
    return found


def not_canceled(session: Session, tenant_id: UUID, name: str) -> Campaign:
    """The same, if something may still be rendered for it.

    Raises:
        NotFound: no such campaign.
        Conflict: it was canceled.
    """
    found = read(session, tenant_id, name)
    if found.wish == "cancel":
        raise Conflict(f"Campaign {found.name!r} was canceled; make a new one.")
    return found


def list_page(session: Session, tenant_id: UUID, *, before: datetime | None, limit: int) -> list[Campaign]:
    """The tenant's campaigns, the newest first."""
    query = select(Campaign).where(Campaign.tenant_id == tenant_id)
    if before is not None:
        query = query.where(Campaign.created_at < before)
    return list(session.scalars(query.order_by(Campaign.created_at.desc()).limit(limit)))


def totals(session: Session, campaign: Campaign) -> Totals:
    """What its jobs cost so far, and what is left to do."""
    return Totals(*session.execute(TOTALS, {"tenant_id": campaign.tenant_id, "name": campaign.name}).one())


def wish(session: Session, tenant_id: UUID, name: str, wanted: Wish) -> Campaign:
    """Let it run, hold it back, or end it; jobs in flight finish. From the commit on no turn is given to a held one.

    Raises:
        NotFound: no such campaign.
        Conflict: it was canceled, which is final.
    """
    found = read(session, tenant_id, name)
    changed = session.scalar(
        update(Campaign)
        .where(Campaign.id == found.id, (Campaign.wish != "cancel") | (wanted == "cancel"))
        .values(wish=wanted)
        .returning(Campaign.id)
    )
    if changed is None:
        raise Conflict(f"Campaign {found.name!r} was canceled; make a new one.")
    found.wish = wanted
    if wanted != "run":
        session.execute(PARK)
    return found


def erase(session: Session, tenant_id: UUID, name: str) -> list[UUID]:
    """Remove a campaign and all its jobs, and give them; those that run stop, and the sweeper deletes what they stored.

    Money stays.

    Raises:
        NotFound: no such campaign.
    """
    found = read(session, tenant_id, name)
    gone = session.execute(ERASE, {"tenant_id": tenant_id, "name": found.name}).all()
    if gone:
        ledger.close(session, *(row.uuid for row in gone))
    for row in gone:
        if row.status == JobState.RUNNING:
            events.announce_stop(session, row.uuid, None)
    session.execute(delete(Campaign).where(Campaign.id == found.id))
    return [row.uuid for row in gone]


def cancel_waiting(session: Session, tenant_id: UUID, name: str, problem: Problem) -> list[UUID]:
    """Cancel every job of the campaign that has not begun; each one's webhook is told, the campaign's by the caller."""
    error = problem.model_dump_json(by_alias=True)
    asked = {"tenant_id": tenant_id, "name": name, "error": error, "channel": JOB_CHANGED}
    ended = session.execute(CANCEL, asked).all()
    for row in ended:
        if row.webhook_id is not None:
            deliveries.add(session, row.uuid, JobState.CANCELED, problem)
    if ended:
        ledger.close(session, *(row.uuid for row in ended))
    return [row.uuid for row in ended]


def park(session: Session, problem: Problem) -> None:
    """Take back the tickets of held campaigns, and end what came back to the queue of canceled ones."""
    session.execute(PARK)
    held = session.execute(STRAGGLERS).all()
    for row in held:
        cancel_waiting(session, row.tenant_id, row.name, problem)
    campaign_ends.tell(session, [(row.tenant_id, row.name) for row in held])
