"""The end of a campaign is told once, with the job that ends it, however its jobs end and however many at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from fluxfarm.campaigns.record import CAMPAIGN_CANCELED
from storage.database import Database
from storage.dispatcher import Dispatcher
from storage.queue import Queue
from storage.records import Job
from storage.repository import attempts, campaign_assets, campaign_ends, campaigns, dispatch, jobs
from storage.repository.campaign_assets import NewAsset
from storage.repository.turns import Claim
from tests.making import make_campaign, make_job, must_claim
from tests.workers.desk import OUTCOME, PROBLEM, Desk, OpenDesk


def begin(desk: Desk, count: int = 2) -> list[Claim]:
    """A campaign that tells of its end, and of no job's; its jobs run."""
    made = make_campaign(desk.tenant, webhook_id=desk.endpoint.id)
    with desk.database.transaction() as session:
        assert campaigns.create(session, made)
        id_ = made.id
    found = [make_job(desk.database, desk.tenant, campaign="spring") for _ in range(count)]
    with desk.database.transaction() as session:
        campaign_assets.add(session, id_, (_asset(n, job.uuid) for n, job in enumerate(found)))
    return [must_claim(desk.database, job.uuid) for job in found]


def _asset(n: int, job: UUID) -> NewAsset:
    return NewAsset(
        n=n, name=f"{n}.png", is_draft=False, row=n, key="k", locale="", placement="p", variant=1, seed=1, values={},
        job_uuid=job,
    )  # fmt: skip


def finish(desk: Desk, claimed: Claim) -> None:
    with desk.database.transaction() as session:
        assert attempts.finish(session, claimed, OUTCOME)


def told(desk: Desk) -> list[str]:
    return [one.type for one in desk.all()]


def _fail(session: Any, last: Claim) -> None:
    assert attempts.fail(session, last, PROBLEM, max_attempts=3)


def _expire(session: Any, last: Claim) -> None:
    session.execute(update(Job).where(Job.uuid == last.uuid).values(lease_expires_at=func.now() - timedelta(seconds=1)))
    assert attempts.expire(session, max_attempts=1, poison=PROBLEM, lost=PROBLEM)


def _overdue(session: Any, last: Claim) -> None:
    assert attempts.give_back(session, last)
    session.execute(update(Job).where(Job.uuid == last.uuid).values(deadline=func.now()))
    assert dispatch.overdue(session, PROBLEM)


def _park(session: Any, last: Claim) -> None:
    assert attempts.give_back(session, last)
    campaigns.wish(session, last.tenant_id, "spring", "cancel")
    campaigns.park(session, CAMPAIGN_CANCELED)


ENDS: dict[str, tuple[Callable[[Any, Claim], Any], str]] = {
    "finish": (lambda session, last: attempts.finish(session, last, OUTCOME), "campaign.done"),
    "fail": (_fail, "campaign.done"),
    "stop": (lambda session, last: attempts.stop(session, last, PROBLEM), "campaign.done"),
    "poison": (_expire, "campaign.done"),
    "overdue": (_overdue, "campaign.done"),
    "cancel": (lambda session, last: jobs.cancel(session, last.tenant_id, last.uuid, PROBLEM), "campaign.done"),
    "erase": (lambda session, last: jobs.erase(session, last.tenant_id, last.uuid), "campaign.done"),
    "campaign": (_park, "campaign.cancelled"),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_last_end_is_told_whatever_it_is(desk: OpenDesk, name: str) -> None:
    end, event = ENDS[name]
    with desk() as open_:
        first, last = begin(open_)
        finish(open_, first)
        assert told(open_) == []
        with open_.database.transaction() as session:
            end(session, last)
            end_is_repeated = name == "finish"
            assert not end_is_repeated or attempts.finish(session, last, OUTCOME)
        assert told(open_) == [event]


def test_an_end_by_deadline_is_told_before_anything_else_is_waited_for(desk: OpenDesk) -> None:
    with desk() as open_:
        (last,) = begin(open_, 1)
        with open_.database.transaction() as session:
            assert attempts.give_back(session, last)
            held = make_campaign(open_.tenant)
            held.name, held.wish = "held", "pause"
            assert campaigns.create(session, held)
            session.execute(update(Job).where(Job.uuid == last.uuid).values(deadline=func.now()))
        parked = make_job(open_.database, open_.tenant, campaign="held")
        with open_.database.transaction() as session:
            session.execute(update(Job).where(Job.uuid == parked.uuid).values(dispatched_at=func.now()))
        dispatcher = Dispatcher(open_.database, Queue(open_.settings), window=2)
        other = threading.Thread(target=dispatcher.ripen, args=(PROBLEM,))
        with open_.database.transaction() as session:
            session.execute(select(Job.uuid).where(Job.uuid == parked.uuid).with_for_update())
            other.start()
            end = time.monotonic() + 2.0
            while not told(open_) and time.monotonic() < end:
                time.sleep(0.02)
            assert told(open_) == ["campaign.done"]
        other.join(10)


def test_two_that_end_at_the_same_moment_tell_once(desk: OpenDesk) -> None:
    with desk() as open_:
        first, last = begin(open_)
        other = threading.Thread(target=finish, args=(open_, last))
        with open_.database.transaction() as session:
            assert attempts.finish(session, first, OUTCOME)
            other.start()
            time.sleep(0.3)  # it waits for the campaign's lock, and has not looked yet
            assert other.is_alive()
        other.join(10)
        assert told(open_) == ["campaign.done"]


def test_many_that_end_at_once_tell_once(desk: OpenDesk) -> None:
    with desk() as open_:
        claims = begin(open_, 12)
        threads = [threading.Thread(target=finish, args=(open_, claimed)) for claimed in claims]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert told(open_) == ["campaign.done"]


def test_more_work_is_told_of_again_and_the_message_counts_the_files(desk: OpenDesk) -> None:
    with desk() as open_:
        first, last = begin(open_)
        finish(open_, first)
        with open_.database.transaction() as session:
            assert attempts.fail(session, last, PROBLEM, max_attempts=3)
        again = make_job(open_.database, open_.tenant, campaign="spring", retry_of=last.uuid)
        assert told(open_) == ["campaign.done"]
        finish(open_, must_claim(open_.database, again.uuid))
        assert told(open_) == ["campaign.done", "campaign.done"]
        sender = open_.sender()
        for delivery in open_.all():
            assert sender.handle(delivery.id) == "delivered"
        body = open_.receiver.arrived[-1].verified(open_.secret)
        assert body["type"] == "campaign.done"
        assert body["data"] == {
            "id": body["data"]["id"],
            "campaign": "spring",
            "state": "done",
            "files": {"total": 2, "queued": 0, "running": 0, "success": 2, "failed": 0, "canceled": 0},
            "spent": "0",
        }


def test_a_campaign_without_a_webhook_tells_nobody(database: Database, desk: OpenDesk) -> None:
    with desk() as open_:
        job = make_job(database, open_.tenant, campaign="autumn")
        with database.transaction() as session:
            campaign_ends.tell(session, [(open_.tenant.id, "autumn"), (open_.tenant.id, "")])
        finish(open_, must_claim(database, job.uuid))
        assert told(open_) == []
