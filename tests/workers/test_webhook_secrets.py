from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import func, text, update
from standardwebhooks.webhooks import WebhookVerificationError

from api.targets import new_secret
from fluxfarm import webhooks as rules
from fluxfarm.errors import NotFound
from fluxfarm.settings import Settings
from storage.database import Database
from storage.repository import deliveries, endpoints, jobs, tenants
from storage.webhook_records import Delivery, Endpoint
from tests.workers.desk import OpenDesk
from tests.workers.receiver import receiving, status
from workers.webhooks import NOTHING, WebhookSender


def test_both_secrets_sign_while_one_is_replaced(desk: OpenDesk) -> None:
    with desk() as open_:
        fresh = new_secret()
        with open_.database.transaction() as session:
            endpoints.rotate(session, open_.tenant.id, open_.endpoint.id, open_.sealer.seal(fresh))
        open_.finished()
        sender = open_.sender()
        sender.handle(open_.delivery().id)
        arrived = open_.receiver.arrived[0]
        assert arrived.headers["webhook-signature"].count("v1,") == 2
        assert arrived.verified(open_.secret) == arrived.verified(fresh)
        first = open_.state().secrets
        assert first[0]["expires_at"] is None
        with open_.database.transaction() as session:  # 24 hours later
            old = {**first[1], "expires_at": "2020-01-01T00:00:00+00:00"}
            session.execute(update(Endpoint).values(secrets=[first[0], old]))
            delivery = endpoints.send_test(session, open_.tenant.id, open_.endpoint.id)
        sender.handle(delivery.id)
        arrived = open_.receiver.arrived[1]
        assert arrived.verified(fresh) == {
            "type": "test",
            "timestamp": delivery.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "data": {"webhook": open_.endpoint.id},
        }
        with pytest.raises(WebhookVerificationError):
            arrived.verified(open_.secret)


def test_at_most_four_secrets_sign(desk: OpenDesk) -> None:
    with desk() as open_:
        for _ in range(6):
            with open_.database.transaction() as session:
                endpoints.rotate(session, open_.tenant.id, open_.endpoint.id, open_.sealer.seal(new_secret()))
        assert len(open_.state().secrets) == 4


def test_a_sender_with_another_key_sends_nothing_unsigned(desk: OpenDesk, settings: Settings) -> None:
    with desk() as open_:
        open_.finished()
        other = settings.model_copy(update={"secret_key": SecretStr("another-key-altogether")})
        sender = WebhookSender(other, open_.database, outlet=open_.receiver.outlet())
        assert sender.handle(open_.delivery().id) == "postponed"
        sender.queue.close()
        assert open_.receiver.arrived == []
        assert open_.delivery().last_error == "internal_error"


@pytest.mark.parametrize("inside", ["10.0.0.7", "169.254.169.254", "::1", "127.0.0.1"])
def test_a_name_that_leads_inside_by_now_is_not_connected_to(desk: OpenDesk, inside: str) -> None:
    with desk() as open_:
        open_.finished()
        sender = open_.sender(resolver=lambda _host, _port: [inside], policy=rules.OUTLET.policy)
        assert sender.handle(open_.delivery().id) == "postponed"
        assert open_.receiver.arrived == []
        assert open_.delivery().last_error == "forbidden_url"
        assert inside not in (open_.log()[0].detail or "")


def test_a_redirect_to_the_inside_is_a_failure_and_not_followed(desk: OpenDesk) -> None:
    with receiving() as inside, desk(status(307, f"Location: http://127.0.0.1:{inside.port}/")) as open_:
        open_.finished()
        assert open_.sender(allowed_ports={open_.receiver.port, inside.port}).handle(open_.delivery().id) == "postponed"
        assert open_.delivery().last_error == "http_307"
        assert inside.arrived == []


def test_nothing_secret_is_logged(desk: OpenDesk, logged: Callable[[], str]) -> None:
    with desk(status(500)) as open_:
        open_.finished()
        sender = open_.sender()
        for _ in range(2):
            open_.due()
            sender.handle(open_.delivery().id)
        said = logged()
        assert open_.delivery().id in said
        for word in ("whsec_", open_.secret[6:30], "s3cr3t", "v1,", "lighthouse"):
            assert word not in said


def test_secrets_are_sealed_at_rest(desk: OpenDesk) -> None:
    with desk() as open_, open_.database.engine.connect() as connection:
        kept = connection.scalar(text("SELECT secrets::text FROM webhook_endpoints"))
        assert "whsec_" not in kept
        assert open_.secret[6:30] not in kept
        assert open_.sealer.open(json.loads(kept)[0]["sealed"]) == open_.secret


def test_erasing_a_job_erases_its_messages_and_they_are_not_sent(desk: OpenDesk) -> None:
    with desk() as open_:
        job = open_.finished()
        delivery = open_.delivery()
        with open_.database.transaction() as session:
            jobs.erase(session, open_.tenant.id, job.uuid)
        assert open_.sender().handle(delivery.id) == NOTHING
        assert open_.all() == []


def test_tenants_do_not_see_each_others(desk: OpenDesk, database: Database) -> None:
    with desk() as open_:
        open_.finished()
        delivery = open_.delivery()
        with database.transaction() as session:
            rival = tenants.ensure_tenant(session, "rival")
        for call in (
            lambda s: endpoints.read(s, rival.id, open_.endpoint.id),
            lambda s: endpoints.rotate(s, rival.id, open_.endpoint.id, "x"),
            lambda s: endpoints.enable(s, rival.id, open_.endpoint.id),
            lambda s: endpoints.remove(s, rival.id, open_.endpoint.id),
            lambda s: endpoints.send_test(s, rival.id, open_.endpoint.id),
            lambda s: endpoints.replay(s, rival.id, delivery.id),
            lambda s: endpoints.list_deliveries(s, rival.id, open_.endpoint.id, state=None, before=None, limit=5),
        ):
            with pytest.raises(NotFound), database.transaction() as session:
                call(session)


def test_what_was_delivered_a_month_ago_is_forgotten_and_what_waits_is_not(desk: OpenDesk) -> None:
    with desk() as open_:
        done, waiting = open_.finished(), open_.finished()
        open_.sender().handle(open_.delivery(done).id)
        with open_.database.transaction() as session:
            session.execute(update(Delivery).values(created_at=func.now() - timedelta(days=99)))
            session.execute(
                update(Delivery).where(Delivery.state == "delivered").values(ended_at=func.now() - timedelta(days=31))
            )
            assert deliveries.forget(session, older_than=30 * 86_400) == 1
        assert [delivery.job_uuid for delivery in open_.all()] == [waiting.uuid]
