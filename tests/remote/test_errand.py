"""A job goes to a provider and comes back as an aiRecord with pictures in our own store."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from PIL import Image
from pydantic import SecretStr
from sqlalchemy import func, update

from fluxfarm.settings import Settings
from storage.database import Database
from storage.gates import Gate
from storage.records import Job
from storage.repository import attempts, calls, ledger, turns
from storage.repository.accounts import OPERATOR
from storage.repository.calls import LEFT_BEHIND, Intent
from storage.repository.turns import Claimant
from tests.money import assert_balanced
from tests.remote.office import Office, opened
from tests.stubs import STUBS
from tests.stubs.cloudflare import ACCOUNT, CloudflareStub
from tests.stubs.fal import FalStub
from tests.stubs.replicate import ReplicateStub
from tests.stubs.server import KEY, Stub, serving
from workers.sweeping import LOST, POISON

PRICE = Decimal("0.012")


@pytest.fixture
def office(settings: Settings, database: Database, api_key: str) -> Iterator[Office]:
    with opened(settings, database, api_key, FalStub(), ReplicateStub()) as made:
        yield made
        assert_balanced(database)
        assert not any(stub.leaks for stub in made.stubs.values())


def attempts_of(record: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [(one["provider"], one["error"] and one["error"]["code"]) for one in record["attempts"]]


def test_a_job_comes_back_from_a_provider_with_its_pictures_in_our_store(office: Office) -> None:
    asked = {"size": "1000x700", "n": 2, "output_format": "png", "guidance": 3.0, "go_fast": True}
    record = office.render(prompt_object=asked)
    assert record["status"] == "SUCCESS", record
    assert len(record["temporaryUrls"]) == 2
    for url in record["temporaryUrls"]:
        reply = office.api.get(url)
        with Image.open(io.BytesIO(reply.content)) as picture:
            assert (picture.format, picture.size) == ("PNG", (1000, 700))
    (attempt,) = record["attempts"]
    assert (attempt["provider"], attempt["ignored"]) == ("fal", ["go_fast"])
    assert attempt["effective"]["endpoint"] == "fal-ai/flux-2"
    assert attempt["parameters"]["n"] == {"behaviour": "emulated", "target": ""}
    assert attempt["parameters"]["guidance"]["target"] == "guidance_scale"
    assert Decimal(record["cost"]) == 2 * PRICE
    assert [call.state for call in office.calls(record["uuid"])] == ["done", "done"]
    assert office.stubs["fal"].accepted == 2
    route = office.api.get(f"/v1/jobs/{record['uuid']}/explain").json()["route"]
    assert [one["provider"] for one in route["candidates"] if one["refused"] is None] == ["fal", "replicate"]
    assert route["choice"] == "fal"


def test_an_edit_takes_its_references_along(office: Office) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (640, 480), "red").save(picture, "PNG")
    reference = office.api.post("/v1/references", files={"file": picture.getvalue()}).json()["id"]
    record = office.render(type="IMAGE_EDITOR", prompt_object={"images": [reference], "size": "640x480"})
    assert record["status"] == "SUCCESS", record
    assert office.stubs["fal"].last.references == 1
    assert Decimal(record["cost"]) == 2 * PRICE  # a megapixel in, a megapixel out
    assert record["attempts"][0]["effective"]["endpoint"] == "fal-ai/flux-2/edit"


@pytest.mark.parametrize(
    ("fault", "code"), [("moderated", "moderated"), ("nsfw", "moderated"), ("invalid", "provider_refused")]
)
def test_what_is_refused_is_taken_to_nobody_else(office: Office, fault: str, code: str) -> None:
    record = office.render(f"a fox [{fault}]")
    assert (record["status"], record["error"]["code"], record["error"]["retryable"]) == ("FAILED", code, False)
    assert attempts_of(record) == [("fal", code)]
    assert office.stubs["replicate"].submits == 0


@pytest.mark.parametrize(
    ("fault", "code"),
    [("internal", "provider_failed"), ("failed-internal", "provider_failed"), ("locked", "provider_account")],
)
def test_what_another_provider_may_do_goes_there(office: Office, fault: str, code: str) -> None:
    office.stubs["fal"].plan.append(fault)
    record = office.render()
    assert attempts_of(record) == [("fal", code), ("replicate", None)], record
    assert record["status"] == "SUCCESS"
    assert office.stubs["fal"].submits == 1


def test_nobody_else_is_asked_where_the_caller_named_one(office: Office) -> None:
    office.stubs["fal"].plan.extend(["internal"] * 9)
    wishes: list[dict[str, Any]] = [{"provider": "fal"}, {"fallback": []}]
    for wish in wishes:
        record = office.render(**wish)
        assert attempts_of(record) == [("fal", "provider_failed")] * 3
    assert office.stubs["replicate"].submits == 0


@pytest.mark.parametrize(("fault", "submits"), [("no-runner", 2), ("busy", 1)], ids=["says-nothing", "asks-for-7-s"])
def test_a_busy_provider_is_asked_twice_unless_it_asks_for_too_long_a_pause(
    office: Office, monkeypatch: pytest.MonkeyPatch, fault: str, submits: int
) -> None:
    monkeypatch.setattr("workers.providers.errand.LONGEST_BACKOFF", 0.05)
    office.stubs["fal"].plan.extend([fault, fault])
    record = office.render()
    assert attempts_of(record) == [("fal", "provider_busy"), ("replicate", None)]
    assert office.stubs["fal"].submits == submits


def test_a_second_try_that_is_taken_is_all_there_was(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.providers.errand.LONGEST_BACKOFF", 0.05)
    office.stubs["fal"].plan.append("no-runner")
    record = office.render()
    assert attempts_of(record) == [("fal", None)], record
    assert (office.stubs["fal"].submits, Decimal(record["cost"])) == (2, PRICE)


@pytest.mark.parametrize("wish", [{"provider": "fal"}, {"fallback": []}], ids=["named", "alone"])
def test_who_waits_for_a_breaker_is_served_when_it_closes(office: Office, wish: dict[str, Any]) -> None:
    uuid = office.post(**wish)["uuid"]
    gates = [Gate(name, OPERATOR) for name in ("fal", "replicate")]
    for gate in gates:
        office.renderer.gates.trip(gate, "it rests", 60)
    time.sleep(1.1)  # the board looks once a second
    office.work(uuid)
    record = office.record(uuid)
    assert (record["status"], attempts_of(record)) == ("QUEUED", [("remote", "provider_busy")]), record
    for gate in gates:
        office.renderer.gates.reset(gate)
    time.sleep(1.1)
    record = office.finish_postponed(uuid)
    assert (record["status"], attempts_of(record)[-1]) == ("SUCCESS", ("fal", None)), record


def test_a_refused_account_waits_for_one_that_is_only_off_for_now(office: Office) -> None:
    uuid = office.post("a fox")["uuid"]
    office.stubs["fal"].plan.append("locked")
    office.renderer.gates.trip(Gate("replicate", OPERATOR), "it rests", 60)
    time.sleep(1.1)
    office.work(uuid)
    record = office.record(uuid)
    assert (record["status"], attempts_of(record)) == ("QUEUED", [("fal", "provider_account")]), record
    office.renderer.gates.reset(Gate("replicate", OPERATOR))
    time.sleep(1.1)
    assert attempts_of(office.finish_postponed(uuid)) == [("fal", "provider_account"), ("replicate", None)]


def test_what_is_still_drawn_for_a_job_that_failed_is_taken_back(office: Office) -> None:
    office.stubs["fal"].plan.extend(["stuck", "nsfw"])
    record = office.render(prompt_object={"n": 2})
    assert (record["status"], record["error"]["code"]) == ("FAILED", "moderated"), record
    assert [job.canceled for job in office.stubs["fal"].jobs.values()] == [True, False]
    assert {call.state for call in office.calls(record["uuid"])} == {"failed"}


@pytest.mark.parametrize(("stub", "fault"), [(CloudflareStub, "no-image"), (STUBS["together"], "link] [expired")])
def test_a_picture_that_is_lost_at_once_is_paid_and_known(
    settings: Settings,
    database: Database,
    api_key: str,
    monkeypatch: pytest.MonkeyPatch,
    stub: Callable[[], Stub],
    fault: str,
) -> None:
    """Its provider answers the submit itself with the result: there is nothing that could be asked for again."""
    monkeypatch.setattr("workers.providers.flight.DOWNLOAD_PAUSE", 0.01)
    made = stub()
    with serving(made) as url:
        changes: dict[str, Any] = {"openai_endpoints": SecretStr(f"{made.name}={url}/v1={KEY}")}
        if made.name == "cloudflare":
            changes = {"cloudflare_account": ACCOUNT, "cloudflare_url": url, "cloudflare_key": SecretStr(KEY)}
        with opened(settings, database, api_key, **changes) as office:
            uuid = office.post(f"a fox [{fault}]", provider=made.name)["uuid"]
            office.work(uuid)
            record = office.record(uuid)
            assert attempts_of(record) == [(made.name, "result_lost")], record
            (call,) = office.calls(uuid)
            assert (call.state, call.cost) == ("failed", Decimal(record["cost"]))
            assert call.cost == call.price > 0


def test_a_refused_account_is_off_until_somebody_looks(office: Office) -> None:
    office.stubs["fal"].plan.append("locked")
    office.render()
    found = office.api.get("/v1/providers").json()["data"]
    breaker = next(one["breaker"] for one in found if one["provider"] == "fal")
    assert breaker["state"] == "open"
    assert "locked" in breaker["reason"].lower()
    time.sleep(1.1)  # the board looks once a second
    record = office.render()
    assert attempts_of(record) == [("replicate", None)]
    assert office.api.post("/v1/providers/fal/reset").status_code == 204
    time.sleep(1.1)
    assert attempts_of(office.render()) == [("fal", None)]


@pytest.mark.parametrize("fault", ["reset", "garbage", "bad-gateway"])
def test_a_lost_answer_is_never_sent_again(office: Office, fault: str) -> None:
    record = office.render(f"a fox [{fault}]")
    assert (record["status"], record["error"]["code"]) == ("FAILED", "outcome_unknown")
    assert (office.stubs["fal"].accepted, office.stubs["replicate"].submits) == (1, 0)
    assert [call.state for call in office.calls(record["uuid"])] == ["unknown"]
    assert Decimal(record["cost"]) == PRICE  # it counts as paid


def test_what_is_paid_is_kept_for_the_next_provider(office: Office) -> None:
    """Two of three pictures come from fal, the third fails there: replicate makes that one only."""
    office.stubs["fal"].plan.extend(["slow", "failed-internal", "slow"])
    record = office.render(prompt_object={"n": 3, "output_format": "png"})
    assert attempts_of(record) == [("fal", "provider_failed"), ("replicate", None)], record
    assert (office.stubs["fal"].accepted, office.stubs["replicate"].accepted) == (3, 1)
    assert all(f"/{record['uuid']}/2/" in key for key in record["aiRecordDetail"]["resultObject"])
    assert len({office.api.get(url).content for url in record["temporaryUrls"]}) == 3
    assert [call.state for call in office.calls(record["uuid"])] == ["done", "failed", "done", "done"]


def test_the_next_attempt_takes_a_call_over(office: Office, database: Database) -> None:
    """Its worker died after the ticket was committed: nothing is posted again."""
    office.stubs["fal"].latency = 30
    uuid = office.post("a fox [no-hook]")["uuid"]
    dead = office.beside(lambda: office.work(uuid))
    end = time.monotonic() + 10
    while not any(call.ticket for call in office.calls(uuid)):
        assert time.monotonic() < end
        time.sleep(0.02)
    with database.transaction() as session:  # as if its lease had run out
        session.execute(
            update(Job)
            .where(Job.uuid == UUID(uuid))
            .values(lease_expires_at=func.now() - func.make_interval(0, 0, 0, 0, 0, 0, 1))
        )
    office.stubs["fal"].latency = 0
    with database.transaction() as session:
        assert attempts.expire(session, max_attempts=3, poison=POISON, lost=LOST)
    record = office.finish(uuid)
    dead.join(10)
    assert record["status"] == "SUCCESS", record
    assert record["attempts"][-1]["provider"] == "fal"
    assert office.stubs["fal"].submits == 1
    assert Decimal(record["cost"]) == PRICE


@pytest.mark.parametrize("mutant", [False, True], ids=["farm", "mutant"])
def test_an_intent_without_a_ticket_is_reported_not_repeated(
    office: Office, database: Database, monkeypatch: pytest.MonkeyPatch, mutant: bool
) -> None:
    """The mutant is the real code without its guard: an intent alone is nothing to it, and it pays a second time."""
    uuid = office.post()["uuid"]
    nobody = Claimant(worker_id=UUID(int=1), worker="dead", provider="remote", lease=0.001)
    with database.transaction() as session:
        claim = turns.claim(session, UUID(uuid), nobody)
        assert claim is not None
        intent = Intent(
            nonce=UUID(int=7),
            job=claim.uuid,
            attempt=claim.attempt,
            images=(0,),
            provider="fal",
            account=OPERATOR,
            model="black-forest-labs/flux-2-dev",
            price=PRICE,
            hooked=False,
        )
        assert calls.intend(session, intent)
    time.sleep(0.05)
    with database.transaction() as session:
        assert attempts.expire(session, max_attempts=3, poison=POISON, lost=LOST)
    if mutant:
        known = calls.of_job
        monkeypatch.setattr(calls, "of_job", lambda session, job: [one for one in known(session, job) if one.ticket])
        assert office.finish(uuid)["status"] == "SUCCESS"
        assert office.stubs["fal"].submits == 1
        with pytest.raises(AssertionError):
            assert_balanced(database)
        with database.transaction() as session:
            assert calls.failed(session, UUID(int=7), LEFT_BEHIND, PRICE)
            ledger.close(session, UUID(uuid))
        return
    record = office.finish(uuid)
    assert (record["status"], record["error"]["code"]) == ("FAILED", "outcome_unknown")
    assert office.stubs["fal"].submits == 0


@pytest.mark.parametrize("heard", [True, False], ids=["notice", "renewal"])
def test_a_cancel_reaches_the_provider(office: Office, monkeypatch: pytest.MonkeyPatch, heard: bool) -> None:
    """Also where the lease keeper meets the end in the record before it has heard the notice."""
    if not heard:
        monkeypatch.setattr("workers.leases.LeaseKeeper._hear", lambda _keeper, _notice: None)
        office.worker.leases._renewal = 0.2  # seconds, else the test takes ten
    uuid = office.post("a fox [stuck]")["uuid"]
    worker = office.beside(lambda: office.work(uuid))
    end = time.monotonic() + 10
    while not any(call.ticket for call in office.calls(uuid)):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert office.api.post(f"/v1/jobs/{uuid}/cancel").status_code == 200
    worker.join(20)
    assert office.stubs["fal"].last.canceled
    record = office.record(uuid)
    assert (record["status"], Decimal(record["cost"])) == ("CANCELED", Decimal(0))
    assert [call.state for call in office.calls(uuid)] == ["failed"]


def test_a_provider_that_falls_silent_is_left_for_the_next_one(office: Office) -> None:
    """The call was taken and counts as paid; the other provider is paid too, and the record says both."""
    office.stubs["fal"].latency = 30
    uuid = office.post("a fox [no-hook]")["uuid"]
    worker = office.beside(lambda: office.work(uuid))
    end = time.monotonic() + 10
    while not any(call.ticket for call in office.calls(uuid)):
        assert time.monotonic() < end
        time.sleep(0.02)
    office.stubs["fal"].silent = True
    worker.join(20)
    record = office.finish(uuid)
    assert attempts_of(record) == [("fal", "result_lost"), ("replicate", None)], record
    assert Decimal(record["cost"]) == 2 * PRICE


def test_the_breaker_opens_for_all_after_ten_failures(office: Office) -> None:
    gates, gate = office.renderer.gates, Gate("fal", OPERATOR)
    for _ in range(9):
        gates.report(gate, good=False)
    assert gates.admit(gate).state == "closed"
    gates.report(gate, good=True)
    assert gates.admit(gate).state == "open"
    office.renderer.gates.reset(gate)
    assert gates.admit(gate).state == "closed"


def test_a_denied_prompt_reaches_no_provider(
    settings: Settings, database: Database, api_key: str, tmp_path: Path
) -> None:
    deny = tmp_path / "deny.txt"
    deny.write_text("red fox\n", encoding="utf-8")
    with opened(settings, database, api_key, FalStub(), safety="block", deny_file=deny) as office:
        record = office.render("a Red Fox")
        assert (record["status"], record["error"]["code"], record["cost"]) == ("FAILED", "moderated", "0.000000")
        assert office.stubs["fal"].submits == 0
        assert office.render("a badger")["status"] == "SUCCESS"
