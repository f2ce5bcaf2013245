"""Calls in any order through the real API, beside a worker's hand, against a model of what a caller may see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import text
from starlette.testclient import TestClient

from api.main import create_app
from fluxfarm.airecord import Problem
from fluxfarm.jobs import JobState
from fluxfarm.scopes import Scope
from fluxfarm.settings import Settings
from storage.database import Database
from storage.objects import ObjectStore, make_store
from storage.repository import attempts, tenants
from storage.repository.turns import Claim
from tests.api.samples import BROKEN, Hand, body

MAY_PASS = Problem(code="device_lost", message="The device went away.", retryable=True)


@dataclass
class Expected:
    """What the caller should see of one job."""

    uuid: str
    tag: str
    status: str = "QUEUED"
    error: str | None = None
    attempts: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


@dataclass
class Farm:
    """The real parts, and another tenant's client."""

    api: TestClient
    rival: TestClient
    hand: Hand
    database: Database


class Calls(RuleBasedStateMachine):
    jobs = Bundle("jobs")
    claims = Bundle("claims")

    def __init__(self, farm: Farm) -> None:
        super().__init__()
        self.farm = farm
        self.model: dict[str, Expected] = {}

    @initialize()
    def forget(self) -> None:
        with self.farm.database.engine.begin() as connection:
            connection.execute(text("DELETE FROM jobs"))

    # the caller

    @rule(target=jobs, tag=st.sampled_from(["spring", "autumn"]), n=st.integers(1, 2))
    def create(self, tag: str, n: int) -> str:
        reply = self.farm.api.post("/v1/jobs", json=body({"n": n}, tags=[tag]))
        assert reply.status_code == 202, reply.text
        record = reply.json()["aiRecord"]
        uuid = str(record["uuid"])
        assert reply.headers["location"].endswith(f"/v1/jobs/{uuid}")
        self.model[uuid] = Expected(uuid, tag)
        self.same(record)
        return uuid

    @rule(job=jobs)
    def poll(self, job: str) -> None:
        reply = self.farm.api.get(f"/v1/jobs/{job}")
        if job not in self.model:
            assert (reply.status_code, reply.json()["code"]) == (404, "not_found")
            return
        assert reply.status_code == 200, reply.text
        self.same(reply.json()["aiRecord"])
        assert ("retry-after" in reply.headers) == (self.model[job].status in {"QUEUED", "RUNNING"})

    @rule(job=jobs)
    def cancel(self, job: str) -> None:
        reply = self.farm.api.post(f"/v1/jobs/{job}/cancel")
        expected = self.model.get(job)
        if expected is None:
            assert reply.status_code == 404
        elif JobState(expected.status).is_final:
            assert (reply.status_code, reply.json()["code"]) == (409, "conflict")
            assert expected.status in reply.json()["detail"]
        else:
            assert reply.status_code == 200, reply.text
            expected.status, expected.error = "CANCELED", "canceled"
            if expected.attempts and expected.attempts[-1] == "RUNNING":
                expected.attempts[-1] = "CANCELED"
            self.same(reply.json()["aiRecord"])

    @rule(job=jobs)
    def erase(self, job: str) -> None:
        gone = self.model.pop(job, None)
        assert self.farm.api.delete(f"/v1/jobs/{job}").status_code == (404 if gone is None else 204)
        for key in [] if gone is None else gone.keys:
            assert self.farm.hand.store.stat(key) is None

    @rule(job=jobs, verb=st.sampled_from(["get", "cancel", "delete"]))
    def a_stranger_sees_nothing(self, job: str, verb: str) -> None:
        rival, url = self.farm.rival, f"/v1/jobs/{job}"
        reply = {"get": lambda: rival.get(url), "cancel": lambda: rival.post(url + "/cancel"),
                 "delete": lambda: rival.delete(url)}[verb]()  # fmt: skip
        assert reply.status_code == 404
        assert rival.get("/v1/jobs").json()["data"] == []

    @rule(
        status=st.sampled_from([None, *JobState]),
        tag=st.sampled_from([None, "spring"]),
        limit=st.integers(1, 3),
    )
    def list_pages(self, status: JobState | None, tag: str | None, limit: int) -> None:
        asked: dict[str, Any] = {"limit": limit}
        asked |= {"status": status.value} if status is not None else {}
        asked |= {"tag": tag} if tag is not None else {}
        seen: list[str] = []
        while True:
            page = self.farm.api.get("/v1/jobs", params=asked).json()
            assert len(page["data"]) <= limit
            seen += [record["uuid"] for record in page["data"]]
            if page["nextCursor"] is None:
                break
            asked["cursor"] = page["nextCursor"]
        wanted = [one for one in self.model.values() if status in {None, one.status} and tag in {None, one.tag}]
        assert seen == [one.uuid for one in reversed(wanted)]

    # the worker

    @rule(target=claims, job=jobs)
    def claim(self, job: str) -> Claim | None:
        expected = self.model.get(job)
        if expected is None or expected.status != "QUEUED":
            with pytest.raises(AssertionError):
                self.farm.hand.claim(job)
            return None
        self.ripen(job)
        claimed = self.farm.hand.claim(job)
        expected.status = "RUNNING"
        expected.attempts.append("RUNNING")
        return claimed

    def ripen(self, job: str) -> None:
        with self.farm.database.engine.begin() as connection:
            connection.execute(text("UPDATE jobs SET run_after = NULL WHERE uuid = :uuid"), {"uuid": job})

    def holder(self, claimed: Claim) -> Expected | None:
        """The job, if the claim still counts."""
        expected = self.model.get(str(claimed.uuid))
        counts = expected is not None and expected.status == "RUNNING" and len(expected.attempts) == claimed.attempt
        return expected if counts else None

    @rule(claimed=claims)
    def finish(self, claimed: Claim | None) -> None:
        if claimed is None:
            return
        expected = self.holder(claimed)
        known = self.model.get(str(claimed.uuid))
        if expected is not None:
            expected.keys = self.farm.hand.finish(claimed)
            expected.status, expected.error = "SUCCESS", None
            expected.attempts[-1] = "SUCCESS"
            return
        won = known is not None and known.status == "SUCCESS" and len(known.attempts) == claimed.attempt
        outcome = attempts.Outcome(images=[], timings={}, model_revision="late")
        with self.farm.database.transaction() as session:
            assert attempts.finish(session, claimed, outcome) == won

    @rule(claimed=claims, problem=st.sampled_from([BROKEN, MAY_PASS]))
    def fail(self, claimed: Claim | None, problem: Problem) -> None:
        if claimed is None:
            return
        expected = self.holder(claimed)
        self.farm.hand.fail(claimed, problem)
        if expected is not None:
            again = problem.retryable and claimed.attempt < 3
            expected.status, expected.error = "QUEUED" if again else "FAILED", problem.code
            expected.attempts[-1] = "FAILED"

    # always

    @invariant()
    def the_listing_tells_the_truth(self) -> None:
        records = self.farm.api.get("/v1/jobs", params={"limit": 200}).json()["data"]
        assert [record["uuid"] for record in records] == list(reversed(self.model))
        for record in records:
            self.same(record)

    def same(self, record: dict[str, Any]) -> None:
        expected = self.model[record["uuid"]]
        error = record["error"]
        assert (record["status"], error and error["code"]) == (expected.status, expected.error)
        assert [one["status"] for one in record["attempts"]] == expected.attempts
        assert record["aiRecordDetail"]["resultObject"] == expected.keys
        assert len(record["temporaryUrls"]) == len(expected.keys)
        assert (record["finishedAt"] is not None) == JobState(expected.status).is_final


@pytest.fixture
def farm(settings: Settings, database: Database, api_key: str) -> Iterator[Farm]:
    with database.transaction() as session:
        rival = tenants.ensure_tenant(session, "rival")
        rival_key = tenants.create_key(session, rival.id, "theirs", Scope)[1]
    store: ObjectStore = make_store(settings)
    with TestClient(create_app(settings), headers={"API-KEY": api_key}) as api:
        stranger = TestClient(api.app, headers={"API-KEY": rival_key})
        yield Farm(api, stranger, Hand(database, store), database)
        stranger.close()
    store.close()


def calls_of(farm: Farm) -> type[Calls]:
    """The machine of this farm: hypothesis makes it again for each sequence."""

    class CallsOfTheFarm(Calls):
        def __init__(self) -> None:
            super().__init__(farm)

    return CallsOfTheFarm


def test_any_sequence_of_calls_shows_one_truth(farm: Farm) -> None:
    run_state_machine_as_test(
        calls_of(farm),
        settings=hypothesis.settings(
            max_examples=50,
            stateful_step_count=18,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_model_notices_a_lie(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel that is told and not done is found by the same machine."""
    monkeypatch.setattr("storage.repository.jobs.sources", lambda _: frozenset({JobState.RUNNING}))
    with pytest.raises(BaseException, match=r"409|200"):
        run_state_machine_as_test(
            calls_of(farm),
            settings=hypothesis.settings(
                max_examples=30,
                stateful_step_count=14,
                deadline=None,
                database=None,
                phases=[hypothesis.Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
