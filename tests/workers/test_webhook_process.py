"""From the end of a job through Valkey to the process that sends."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis
from sqlalchemy import func, update

from fluxfarm.parts import Access, environment, farm_parts
from fluxfarm.settings import Settings
from storage.database import Database
from storage.notifier import WINDOW, Notifier
from storage.queue import WEBHOOK_QUEUE, Queue
from storage.repository import endpoints
from storage.repository.deliveries import PER_ENDPOINT
from storage.webhook_records import Delivery
from tests.conftest import ROOT
from tests.workers.desk import Desk, OpenDesk
from workers.webhooks import WebhookSender


@pytest.fixture
def queue(settings: Settings) -> Iterator[Queue]:
    made = Queue(settings)
    yield made
    made.close()


@pytest.fixture
def notifier(database: Database, queue: Queue) -> Notifier:
    return Notifier(database, queue)


@pytest.fixture
def tickets(settings: Settings) -> Callable[[], list[dict[str, Any]]]:
    def read() -> list[dict[str, Any]]:
        with Redis.from_url(settings.redis_url.get_secret_value()) as redis:
            return [json.loads(raw) for raw in redis.lrange(WEBHOOK_QUEUE, 0, -1)]

    return read


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


@contextmanager
def running(settings: Settings, folder: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the farm; killed at the end if it still runs."""
    talkative = settings.model_copy(update={"log_level": "INFO"})
    with (folder / "said").open("ab") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, env=environment(talkative), stdout=said, stderr=said
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def launch(desk: Desk) -> tuple[str, ...]:
    return ("tests.workers.sender_process", str(desk.receiver.port))


def test_a_finished_job_is_told_through_the_broker_by_a_process_of_its_own(
    settings: Settings,
    tmp_path: Path,
    desk: OpenDesk,
    notifier: Notifier,
    tickets: Callable[[], list[dict[str, Any]]],
) -> None:
    with desk() as open_:
        jobs = [open_.finished(), open_.finished(), open_.finished()]
        notifier.hurry(open_.endpoint.id)
        sent = tickets()
        assert len(sent) == PER_ENDPOINT  # the third waits for its turn
        for ticket, delivery in zip(reversed(sent), open_.all(), strict=False):
            args, kwargs, _ = json.loads(base64.b64decode(ticket["body"]))
            assert (args, kwargs) == ([delivery.id], {})
            for word in (open_.receiver.url, "s3cr3t", "whsec_", str(open_.tenant.id), str(jobs[0].uuid), "lighthouse"):
                assert word not in json.dumps(ticket)
        with running(settings, tmp_path, *launch(open_)) as process:
            eventually(lambda: all(delivery.state == "delivered" for delivery in open_.all()))
            process.terminate()
            assert process.wait(10) == 0
        told = [arrived.verified(open_.secret)["data"]["uuid"] for arrived in open_.receiver.arrived]
        assert sorted(told) == sorted(str(job.uuid) for job in jobs)
        said = (tmp_path / "said").read_text()
        assert open_.all()[0].id in said
        for word in ("s3cr3t", "whsec_", open_.secret[6:30], "v1,", "Traceback"):
            assert word not in said


def test_a_sender_killed_between_the_post_and_its_note_is_followed_by_another_with_the_same_id(
    settings: Settings, tmp_path: Path, desk: OpenDesk, notifier: Notifier
) -> None:
    with desk() as open_:
        open_.receiver.answers.append(open_.receiver.never)
        open_.finished()
        notifier.hurry(open_.endpoint.id)
        with running(settings, tmp_path, *launch(open_)) as process:
            eventually(lambda: open_.receiver.arrived)
            process.kill()
            process.wait()
        assert open_.delivery().state == "pending"
        assert notifier.send_due() == 0  # its lease still holds
        with open_.database.transaction() as session:
            session.execute(update(Delivery).values(lease_expires_at=func.now()))
        assert notifier.send_due() == 1
        with running(settings, tmp_path, *launch(open_)):
            eventually(lambda: open_.delivery().state == "delivered")
        first, second = open_.receiver.arrived
        assert (first.id, first.body) == (second.id, second.body)
        assert [attempt.error for attempt in open_.log()] == ["sender_lost", None]


def test_the_process_of_the_farm_sends_nothing_inside(
    settings: Settings, tmp_path: Path, desk: OpenDesk, notifier: Notifier
) -> None:
    with desk() as open_:
        with open_.database.transaction() as session:
            url = f"https://127.0.0.1:{open_.receiver.port}/"
            made = endpoints.create(session, open_.tenant.id, url, open_.sealer.seal(open_.secret))
            delivery = endpoints.send_test(session, open_.tenant.id, made.id)
        notifier.hurry(made.id)
        with running(settings, tmp_path, "workers", "webhooks"):
            eventually(lambda: open_.delivery().last_error is not None)
        assert (open_.delivery().id, open_.delivery().last_error) == (delivery.id, "forbidden_url")
        assert open_.receiver.arrived == []


def test_the_farm_runs_a_process_for_webhooks(settings: Settings) -> None:
    parts = {part.name: part.argv for part in farm_parts(settings, Access(api_key="", flower_password=""))}
    assert parts["webhooks"] == (sys.executable, "-m", "workers", "webhooks")


def test_with_the_broker_down_nothing_is_lost(
    settings: Settings, database: Database, desk: OpenDesk, notifier: Notifier
) -> None:
    with desk() as open_:
        open_.finished()
        nowhere = Queue(settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")}))
        cut_off = Notifier(database, nowhere)
        assert cut_off.send_due() == 0
        cut_off.hurry(open_.endpoint.id)
        nowhere.close()
        assert open_.delivery().ticketed_at is None
        assert notifier.send_due() == 1
        assert notifier.send_due() == 0  # it has its ticket


def test_a_lost_ticket_is_sent_again_after_a_while(desk: OpenDesk, notifier: Notifier) -> None:
    with desk() as open_:
        open_.finished()
        assert notifier.send_due() == 1
        with open_.database.transaction() as session:
            session.execute(update(Delivery).values(ticketed_at=func.now() - func.make_interval(0, 0, 0, 0, 0, 0, 31)))
        assert notifier.send_due() == 1


def test_what_has_been_due_for_longer_is_sent_first(
    desk: OpenDesk, notifier: Notifier, tickets: Callable[[], list[dict[str, Any]]]
) -> None:
    with desk() as open_:
        with open_.database.transaction() as session:
            for n in range(6):
                made = endpoints.create(session, open_.tenant.id, f"http://{n}.example/", open_.sealer.seal("x"))
                endpoints.send_test(session, open_.tenant.id, made.id)
        wanted = [delivery.id for delivery in reversed(open_.all())]
        with open_.database.transaction() as session:
            for age, name in enumerate(reversed(wanted)):
                due = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, age)
                session.execute(update(Delivery).where(Delivery.id == name).values(next_attempt_at=due))
        assert notifier.send_due() == len(wanted)
        sent = [json.loads(base64.b64decode(ticket["body"]))[0] for ticket in reversed(tickets())]
        assert sent == [[name] for name in wanted]


def test_a_full_window_is_not_filled_further(settings: Settings, desk: OpenDesk, notifier: Notifier) -> None:
    with desk() as open_:
        open_.finished()
        with Redis.from_url(settings.redis_url.get_secret_value()) as redis:
            redis.lpush(WEBHOOK_QUEUE, *["x"] * WINDOW)
            assert notifier.send_due() == 0
            redis.delete(WEBHOOK_QUEUE)
        assert notifier.send_due() == 1


def test_a_slow_endpoint_keeps_two_places_and_the_others_go_on(desk: OpenDesk, notifier: Notifier) -> None:
    with desk() as open_:
        for _ in range(6):
            open_.finished()
        with open_.database.transaction() as session:
            other = endpoints.create(session, open_.tenant.id, "http://other.example/", open_.sealer.seal("x"))
            endpoints.send_test(session, open_.tenant.id, other.id)
        assert notifier.send_due() == PER_ENDPOINT + 1
        assert notifier.send_due() == 0
        first = open_.all()[0]
        assert open_.sender().handle(first.id) == "delivered"  # and the next one has its ticket
        assert sum(delivery.ticketed_at is not None for delivery in open_.all()) == PER_ENDPOINT + 1


def test_notifiers_at_once_give_each_ticket_once(settings: Settings, desk: OpenDesk) -> None:
    with desk() as open_:
        with open_.database.transaction() as session:
            for n in range(20):
                made = endpoints.create(session, open_.tenant.id, f"http://{n}.example/", open_.sealer.seal("x"))
                endpoints.send_test(session, open_.tenant.id, made.id)
        senders = [WebhookSender(settings, open_.database) for _ in range(4)]
        sent: list[int] = []
        threads = [threading.Thread(target=lambda s=s: sent.append(s.notifier.send_due())) for s in senders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert sum(sent) == 20
        assert senders[0].queue.depth(WEBHOOK_QUEUE) == 20
        for sender in senders:
            sender.queue.close()
