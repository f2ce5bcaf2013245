"""What the client sends again: with an idempotency key a POST, and jobs that failed."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from fluxfarm import errors
from fluxfarm.airecord import Problem
from fluxfarm.client import Client
from fluxfarm.jobs import JobState
from tests.fluxfarm.stub_api import KEY, Reply, StubFarm, json_reply, problem

BROKEN = Problem(code="render_failed", message="The pipeline raised.", retryable=True)
DROPPED = Reply(None)


@pytest.fixture
def farm() -> Iterator[StubFarm]:
    with StubFarm().running() as stub:
        yield stub


@pytest.fixture
def client(farm: StubFarm) -> Iterator[Client]:
    with Client(farm.url, KEY, timeout=5, patience=0.5) as client:
        yield client


def test_a_key_goes_along_and_the_call_lives_through_broken_connections(client: Client, farm: StubFarm) -> None:
    farm.next("POST", "/v1/jobs", DROPPED, DROPPED)
    record = client.submit("a fox", model="m", idempotency_key="order-7", external_id="order 7")
    calls = farm.seen("POST", "/v1/jobs")
    assert [call.headers["idempotency-key"] for call in calls] == ["order-7"] * 3
    assert len({call.body for call in calls}) == 1
    assert calls[0].json["externalId"] == "order 7"
    assert list(farm.jobs) == [record.uuid]


def test_without_a_key_it_is_sent_once(client: Client, farm: StubFarm) -> None:
    farm.next("POST", "/v1/jobs", DROPPED)
    with pytest.raises(errors.Unavailable, match="may have been done"):
        client.submit("a fox", model="m")
    assert len(farm.seen("POST", "/v1/jobs")) == 1
    assert "idempotency-key" not in farm.calls[0].headers


def test_it_gives_up_in_time(client: Client, farm: StubFarm) -> None:
    farm.next("POST", "/v1/jobs", *[DROPPED] * 50)
    with pytest.raises(errors.Unavailable):
        client.submit("a fox", model="m", idempotency_key="k")
    assert 2 <= len(farm.seen("POST", "/v1/jobs")) < 20


def test_a_twin_in_flight_and_a_busy_farm_are_waited_for(client: Client, farm: StubFarm) -> None:
    in_flight = problem(errors.IdempotencyInFlight("Still worked on."), {"retry-after": "0"})
    farm.next("POST", "/v1/jobs", in_flight, problem(errors.DatabaseUnavailable("Away."), {"retry-after": "0"}))
    client.submit("a fox", model="m", idempotency_key="k")
    assert len(farm.seen("POST", "/v1/jobs")) == 3


@pytest.mark.parametrize("kind", [errors.IdempotencyKeyReused, errors.InvalidIdempotencyKey, errors.InvalidSize])
def test_what_is_refused_is_not_sent_again(client: Client, farm: StubFarm, kind: type[errors.FluxfarmError]) -> None:
    farm.next("POST", "/v1/jobs", problem(kind("No.")))
    with pytest.raises(kind):
        client.submit("a fox", model="m", idempotency_key="k")
    assert len(farm.seen("POST", "/v1/jobs")) == 1


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 256, '"quoted"'])
def test_a_bad_key_never_leaves(client: Client, farm: StubFarm, key: str) -> None:
    with pytest.raises(errors.InvalidIdempotencyKey):
        client.submit("a fox", model="m", idempotency_key=key)
    assert farm.calls == []


def test_the_job_that_stands_in_the_way_is_named(client: Client, farm: StubFarm) -> None:
    other = uuid4()
    body = {"code": "external_id_taken", "detail": "Another job has it.", "status": 409, "job": str(other)}
    farm.next("POST", "/v1/jobs", json_reply(body, 409))
    with pytest.raises(errors.ExternalIdTaken) as caught:
        client.submit("a fox", model="m", external_id="order 7")
    assert caught.value.job == other
    farm.next("POST", "/v1/jobs", json_reply(body | {"job": "x"}, 409))
    with pytest.raises(errors.ExternalIdTaken) as again:
        client.submit("a fox", model="m", external_id="order 7")
    assert again.value.job is None


def test_retry_gives_the_new_job(client: Client, farm: StubFarm) -> None:
    old = farm.finish(farm.add_job({"prompt": "a"}).uuid, JobState.FAILED, BROKEN)
    path = f"/v1/jobs/{old.uuid}/retry"
    farm.next("POST", path, DROPPED)
    new = client.retry(old.uuid, idempotency_key="again")
    assert new.retry_of == old.uuid
    assert [call.headers["idempotency-key"] for call in farm.seen("POST", path)] == ["again"] * 2
    farm.next("POST", path, problem(errors.ReferenceGone("Deleted.")))
    with pytest.raises(errors.ReferenceGone):
        client.retry(old.uuid)


def test_retry_failed_goes_on_to_the_end_or_the_limit(client: Client, farm: StubFarm) -> None:
    made = [str(uuid4()) for _ in range(3)]
    skipped = [{"job": str(uuid4()), "code": "reference_gone"}]

    def pages() -> None:
        first = {"retried": 2, "jobs": made[:2], "skipped": skipped, "nextCursor": "next"}
        second = {"retried": 1, "jobs": made[2:], "skipped": [], "nextCursor": None}
        farm.next("POST", "/v1/jobs/retry", json_reply(first, 202), json_reply(second, 202))

    pages()
    done = client.retry_failed(error="render_failed", campaign="spring", tag="sale")
    assert [str(uuid) for uuid in done.jobs] == made
    assert [(str(one.job), one.code) for one in done.skipped] == [(skipped[0]["job"], "reference_gone")]
    narrowed = {"error": "render_failed", "campaign": "spring", "tag": "sale"}
    assert [call.json for call in farm.calls] == [narrowed, narrowed | {"cursor": "next"}]
    farm.calls.clear()
    pages()
    assert client.retry_failed(limit=2).next_cursor == "next"
    assert [call.json for call in farm.calls] == [{"limit": 2}]


def test_dead_letters_are_asked_for_by_their_code(client: Client, farm: StubFarm) -> None:
    list(client.iterate(status=JobState.FAILED, error="poison"))
    client.list(external_id="order 7")
    assert [call.query for call in farm.calls] == [{"status": "FAILED", "error": "poison"}, {"externalId": "order 7"}]
