"""Jobs to test with, and databases of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.orm import Session

from fluxfarm.jobs import JobState, JobType, Lane
from fluxfarm.request import RenderRequest
from storage.campaign_records import Campaign
from storage.database import Database
from storage.queue import local_queue
from storage.records import Job, Tenant
from storage.repository import followers, jobs, turns
from storage.repository.jobs import NewJob
from storage.repository.turns import Claim, Claimant

MODEL = "fluxfarm/flux-2-klein-small"
QUEUE = local_queue(MODEL)


@contextmanager
def own_database(server_url: str, *, pool_size: int = 10) -> Iterator[Database]:
    """An empty database without tables on the server of the tests; the other tests keep theirs."""
    name = f"own_{uuid4().hex}"
    server = Database(SecretStr(server_url), pool_size=1)
    alone = server.engine.execution_options(isolation_level="AUTOCOMMIT")
    with alone.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = server.engine.url.set(drivername="postgresql", database=name)
    own = Database(SecretStr(url.render_as_string(hide_password=False)), pool_size=pool_size)
    try:
        yield own
    finally:
        own.close()
        with alone.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        server.close()


def make_request(**changes: Any) -> RenderRequest:
    values: dict[str, Any] = {
        "type": JobType.IMAGE_GENERATOR,
        "model": MODEL,
        "prompt": "a lighthouse at dusk",
        "width": 64,
        "height": 64,
        "seeds": (7,),
        "steps": 2,
        "guidance": 3.0,
        "output_format": "webp",
        "output_quality": 80,
    }
    return RenderRequest(**(values | changes))


def make_job(database: Database, tenant: Tenant, *, request: RenderRequest | None = None, **changes: Any) -> Job:
    values: dict[str, Any] = {"queue": QUEUE, "lane": Lane.INTERACTIVE, "prompt_object": {"prompt": "a lighthouse"}}
    new = NewJob(uuid=uuid4(), tenant_id=tenant.id, request=request or make_request(), **(values | changes))
    with database.transaction() as session:
        return jobs.create(session, new)


def take_alone(session: Session, queue: str = QUEUE, ticket: UUID | None = None) -> Claim | None:
    """Claim the job whose turn it is, without followers."""
    claims = followers.take_together(session, queue, ticket or uuid4(), claimant(), lambda _: 1)
    return claims[0] if claims else None


def make_campaign(tenant: Tenant, *, webhook_id: str | None = None) -> Campaign:
    """The running campaign ``spring``, not stored yet."""
    return Campaign(
        id=uuid4(),
        tenant_id=tenant.id,
        name="spring",
        digest=b"",
        spec={},
        references={},
        arithmetic="3",
        wish="run",
        webhook_id=webhook_id,
    )


def claimant(lease: float = 30.0) -> Claimant:
    return Claimant(worker_id=uuid4(), worker="test", provider="local", lease=lease)


def claim(database: Database, uuid: UUID, lease: float = 30.0) -> Claim | None:
    with database.transaction() as session:
        return turns.claim(session, uuid, claimant(lease))


def must_claim(database: Database, uuid: UUID, lease: float = 30.0) -> Claim:
    claimed = claim(database, uuid, lease)
    assert claimed is not None
    return claimed


def read_job(database: Database, job: Job) -> Job:
    with database.transaction() as session:
        return jobs.read(session, job.tenant_id, job.uuid)


def state(database: Database, job: Job) -> JobState:
    return read_job(database, job).status
