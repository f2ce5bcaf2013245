"""A webhook endpoint of a tenant, and what happens around it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import func, select, update

from api.targets import new_secret
from fluxfarm.airecord import Problem
from fluxfarm.settings import Settings
from storage.database import Database
from storage.records import Job, Tenant
from storage.repository import attempts, endpoints
from storage.sealing import Sealer
from storage.webhook_records import Delivery, DeliveryAttempt, Endpoint
from tests.making import make_job, must_claim
from tests.workers.receiver import Receiver
from workers.webhooks import WebhookSender

PROBLEM = Problem(code="render_failed", message="It broke.", retryable=False)
OUTCOME = attempts.Outcome(images=[], timings={"render": 0.1}, model_revision="test")


class Desk:
    """One endpoint, and what happens around it."""

    def __init__(self, settings: Settings, database: Database, tenant: Tenant, receiver: Receiver) -> None:
        self.settings, self.database, self.tenant, self.receiver = settings, database, tenant, receiver
        self.secret = new_secret()
        self.sealer = Sealer.from_settings(settings)
        with database.transaction() as session:
            self.endpoint = endpoints.create(session, tenant.id, receiver.url, self.sealer.seal(self.secret))
        self.senders: list[WebhookSender] = []

    def sender(self, seconds: float = 5.0, **outlet: Any) -> WebhookSender:
        made = WebhookSender(self.settings, self.database, outlet=self.receiver.outlet(seconds, **outlet))
        self.senders.append(made)
        return made

    def finished(self, **changes: Any) -> Job:
        job = make_job(self.database, self.tenant, webhook_id=self.endpoint.id, **changes)
        claimed = must_claim(self.database, job.uuid)
        with self.database.transaction() as session:
            assert attempts.finish(session, claimed, OUTCOME)
        return job

    def delivery(self, job: Job | None = None) -> Delivery:
        query = select(Delivery) if job is None else select(Delivery).where(Delivery.job_uuid == job.uuid)
        with self.database.transaction() as session:
            return session.scalars(query).one()

    def all(self) -> list[Delivery]:
        with self.database.transaction() as session:
            return list(session.scalars(select(Delivery).order_by(Delivery.seq)))

    def log(self) -> list[DeliveryAttempt]:
        with self.database.transaction() as session:
            return list(session.scalars(select(DeliveryAttempt).order_by(DeliveryAttempt.number)))

    def state(self) -> Endpoint:
        with self.database.transaction() as session:
            return session.scalars(select(Endpoint)).one()

    def due(self) -> None:
        """Let the time pass until everything that waits is due."""
        with self.database.transaction() as session:
            session.execute(update(Delivery).values(next_attempt_at=func.now()))
            session.execute(update(Endpoint).values(paused_until=None))

    def wait_of(self, delivery: Delivery) -> float:
        with self.database.transaction() as session:
            now = session.scalars(select(func.now())).one()
        return float((delivery.next_attempt_at - now).total_seconds())


OpenDesk = Callable[..., AbstractContextManager[Desk]]
