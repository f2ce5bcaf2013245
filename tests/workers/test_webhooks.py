from __future__ import annotations

import socket
import threading
import time

import pytest
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from api.targets import new_secret
from fluxfarm import webhooks as rules
from fluxfarm.errors import Conflict
from storage.database import Database
from storage.repository import attempts, deliveries, endpoints
from tests.making import make_job, must_claim
from tests.workers.desk import PROBLEM, OpenDesk
from tests.workers.receiver import status
from workers.webhooks import NOTHING


def test_a_message_is_signed_thin_and_delivered(desk: OpenDesk) -> None:
    with desk() as open_:
        job = open_.finished(campaign="spring", external_id="sku-1")
        delivery = open_.delivery()
        assert open_.sender().handle(delivery.id) == "delivered"
        (arrived,) = open_.receiver.arrived
        told = arrived.verified(open_.secret)
        assert told["type"] == "job.succeeded"
        assert told["data"] == {
            "uuid": str(job.uuid),
            "status": "SUCCESS",
            "model": job.model,
            "campaign": "spring",
            "externalId": "sku-1",
        }
        assert set(told) == {"type", "timestamp", "data"}
        assert arrived.id == delivery.id
        assert arrived.headers["content-type"] == "application/json"
        assert len(arrived.body) < rules.MAX_BODY
        assert b"lighthouse" not in arrived.body  # the prompt
        with pytest.raises(WebhookVerificationError):
            Webhook(new_secret()).verify(arrived.body, arrived.headers)
        after = open_.delivery()
        assert (after.state, after.attempts, after.last_status) == ("delivered", 1, 204)
        (attempt,) = open_.log()
        assert (attempt.number, attempt.status, attempt.error) == (1, 204, None)
        assert attempt.ms is not None
        assert 0 <= attempt.ms < 5000


def test_a_failure_tells_its_code(database: Database, desk: OpenDesk) -> None:
    with desk() as open_:
        job = make_job(database, open_.tenant, webhook_id=open_.endpoint.id)
        claimed = must_claim(database, job.uuid)
        with database.transaction() as session:
            attempts.fail(session, claimed, PROBLEM, max_attempts=3)
        open_.sender().handle(open_.delivery().id)
        data = open_.receiver.arrived[0].verified(open_.secret)["data"]
        assert (data["status"], data["error"]) == ("FAILED", "render_failed")


def test_a_second_ticket_sends_nothing(desk: OpenDesk) -> None:
    with desk() as open_:
        open_.finished()
        sender, delivery = open_.sender(), open_.delivery()
        assert sender.handle(delivery.id) == "delivered"
        assert sender.handle(delivery.id) == NOTHING
        assert sender.handle("msg_unknown") == NOTHING
        assert len(open_.receiver.arrived) == 1


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (status(500), "http_500"),
        (status(404), "http_404"),
        (status(302, "Location: http://127.0.0.1/inside"), "http_302"),
        (status(304), "http_304"),
        (b"nonsense\r\n\r\n", "unreachable_url"),
        (b"", "unreachable_url"),
    ],
)
def test_anything_but_2xx_is_tried_again_under_the_same_id(desk: OpenDesk, answer: bytes, code: str) -> None:
    with desk(answer) as open_:
        open_.finished()
        sender, delivery = open_.sender(), open_.delivery()
        assert sender.handle(delivery.id) == "postponed"
        after = open_.delivery()
        assert (after.state, after.last_error) == ("pending", code)
        assert 4.4 < open_.wait_of(after) < 5.6
        assert sender.handle(delivery.id) == NOTHING  # it is not due
        open_.due()
        assert sender.handle(delivery.id) == "delivered"
        first, second = open_.receiver.arrived
        assert first.id == second.id
        assert first.body == second.body
        assert [attempt.error for attempt in open_.log()] == [code, None]


def test_a_body_of_10_gb_is_not_read(desk: OpenDesk) -> None:
    sent = 0

    def flood(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n")
        while True:
            sent += connection.send(bytes(65536))

    with desk(flood) as open_:
        open_.finished()
        started = time.monotonic()
        assert open_.sender().handle(open_.delivery().id) == "delivered"
        assert time.monotonic() - started < 3
    assert sent < 100 * 2**20


def test_one_that_never_answers_is_given_up_in_time(desk: OpenDesk) -> None:
    with desk() as open_:
        open_.receiver.answers.append(open_.receiver.never)
        open_.finished()
        started = time.monotonic()
        assert open_.sender(0.3).handle(open_.delivery().id) == "postponed"
        assert time.monotonic() - started < 3
        (attempt,) = open_.log()
        assert (attempt.status, attempt.error) == (None, "unreachable_url")
        assert "0.3 seconds" in (attempt.detail or "")


def test_one_that_drips_its_head_is_given_up_in_time(desk: OpenDesk) -> None:
    def drip(connection: socket.socket) -> None:
        for letter in b"HTTP/1.1 200 OK\r\n" * 20:
            connection.sendall(bytes([letter]))
            time.sleep(0.05)

    with desk(drip) as open_:
        open_.finished()
        started = time.monotonic()
        assert open_.sender(0.4).handle(open_.delivery().id) == "postponed"
        assert time.monotonic() - started < 3


def test_410_disables_the_endpoint_and_fails_what_waits(desk: OpenDesk) -> None:
    with desk(status(410)) as open_:
        first, second = open_.finished(), open_.finished()
        assert open_.sender().handle(open_.delivery(first).id) == "gone"
        assert (open_.delivery(first).state, open_.delivery(first).last_error) == ("failed", "http_410")
        assert (open_.delivery(second).state, open_.delivery(second).last_error) == ("failed", "endpoint_disabled")
        endpoint = open_.state()
        assert endpoint.disabled_at is not None
        assert "410" in (endpoint.disabled_reason or "")
        third = open_.finished()  # told nobody, and not lost: a replay can send it
        waiting = open_.delivery(third)
        assert (waiting.state, waiting.last_error) == ("failed", "endpoint_disabled")
        with open_.database.transaction() as session, pytest.raises(Conflict):
            endpoints.replay(session, open_.tenant.id, waiting.id)
        with open_.database.transaction() as session:
            endpoints.enable(session, open_.tenant.id, endpoint.id)
            endpoints.replay(session, open_.tenant.id, waiting.id)
        assert open_.sender().handle(waiting.id) == "delivered"
        assert len(open_.receiver.arrived) == 2


@pytest.mark.parametrize("code", [429, 502, 503, 504])
def test_a_throttled_endpoint_is_left_alone_for_as_long_as_it_asks(desk: OpenDesk, code: int) -> None:
    with desk(status(code, "Retry-After: 120")) as open_:
        first, second = open_.finished(), open_.finished()
        sender = open_.sender()
        assert sender.handle(open_.delivery(first).id) == "postponed"
        assert 115 < open_.wait_of(open_.delivery(first)) <= 120
        assert sender.handle(open_.delivery(second).id) == NOTHING
        assert sender.notifier.send_due() == 0
        assert len(open_.receiver.arrived) == 1


def test_retry_after_of_other_failures_is_not_obeyed(desk: OpenDesk) -> None:
    with desk(status(500, "Retry-After: 86400")) as open_:
        open_.finished()
        open_.sender().handle(open_.delivery().id)
        assert open_.wait_of(open_.delivery()) < 6


def test_after_ten_attempts_it_has_failed_and_a_replay_starts_again(desk: OpenDesk) -> None:
    with desk(*[status(500)] * 10) as open_:
        open_.finished()
        sender, delivery = open_.sender(), open_.delivery()
        words = []
        for _ in range(10):
            open_.due()
            words.append(sender.handle(delivery.id))
        assert words == ["postponed"] * 9 + ["failed"]
        open_.due()
        assert sender.handle(delivery.id) == NOTHING
        with open_.database.transaction() as session:
            endpoints.replay(session, open_.tenant.id, delivery.id)
        assert sender.handle(delivery.id) == "delivered"
        assert {arrived.id for arrived in open_.receiver.arrived} == {delivery.id}
        assert [attempt.number for attempt in open_.log()] == list(range(1, 12))


def test_a_delivered_one_can_be_replayed_with_a_fresh_timestamp(desk: OpenDesk) -> None:
    with desk() as open_:
        open_.finished()
        sender, delivery = open_.sender(), open_.delivery()
        sender.handle(delivery.id)
        time.sleep(1.1)
        with open_.database.transaction() as session:
            endpoints.replay(session, open_.tenant.id, delivery.id)
        assert sender.handle(delivery.id) == "delivered"
        first, second = open_.receiver.arrived
        assert (first.id, first.body) == (second.id, second.body)
        assert int(second.headers["webhook-timestamp"]) > int(first.headers["webhook-timestamp"])
        second.verified(open_.secret)


def test_two_senders_send_each_attempt_once(desk: OpenDesk) -> None:
    with desk() as open_:
        for _ in range(12):
            open_.finished()
        found = [delivery.id for delivery in open_.all()]
        senders = [open_.sender(), open_.sender()]
        words: list[str] = []
        threads = [
            threading.Thread(target=lambda s=sender, ids=ids: words.extend(s.handle(one) for one in ids))
            for sender, ids in zip(senders, (found, found), strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(words) == ["delivered"] * 12 + [NOTHING] * 12
        assert sorted(arrived.id for arrived in open_.receiver.arrived) == sorted(found)


def test_a_sender_that_dies_before_it_writes_the_answer_down_is_followed_by_another(desk: OpenDesk) -> None:
    with desk() as open_:
        open_.finished()
        dying, alive, delivery = open_.sender(), open_.sender(), open_.delivery()
        with open_.database.transaction() as session:
            message = deliveries.claim(session, delivery.id, 0.05)
        assert message is not None
        dying.send(message)  # and dies
        assert open_.delivery().state == "pending"
        time.sleep(0.1)
        assert alive.handle(delivery.id) == "delivered"
        first, second = open_.receiver.arrived
        assert (first.id, first.body) == (second.id, second.body)
        assert [attempt.error for attempt in open_.log()] == ["sender_lost", None]
        # The dead one comes back: too late to change anything.
        with open_.database.transaction() as session:
            late = deliveries.Answer(ms=1, status=500, error="http_500")
            assert not deliveries.postpone(session, message, late, wait=5, pause=0)
            assert not deliveries.succeed(session, message, deliveries.Answer(ms=1, status=200))
        assert open_.delivery().state == "delivered"


def test_a_message_that_kills_its_senders_ends(desk: OpenDesk) -> None:
    with desk() as open_:
        open_.finished()
        delivery = open_.delivery()
        for _ in rules.SCHEDULE:
            with open_.database.transaction() as session:
                assert deliveries.claim(session, delivery.id, 0.0) is not None
        assert open_.sender().handle(delivery.id) == "failed"
        assert open_.delivery().last_error == "sender_lost"
        assert open_.receiver.arrived == []
