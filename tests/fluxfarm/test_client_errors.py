"""What the client makes of errors, of broken connections and of those who are no farm."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest

from fluxfarm import errors
from fluxfarm.client import Client
from tests.fluxfarm.stub_api import (
    KEY,
    Reply,
    StubFarm,
    json_reply,
    problem,
)

ANYTHING = "a lighthouse"


@pytest.fixture
def farm() -> Iterator[StubFarm]:
    with StubFarm().running() as stub:
        yield stub


@pytest.fixture
def client(farm: StubFarm) -> Iterator[Client]:
    with Client(farm.url, KEY, timeout=5, patience=0.5) as client:
        yield client


@pytest.mark.parametrize(
    "kind",
    [
        errors.InvalidSize,
        errors.ForbiddenUrl,
        errors.Unauthorized,
        errors.ModelNotFound,
        errors.Conflict,
        errors.TooManyRequests,
        errors.InternalError,
        errors.DatabaseUnavailable,
    ],
)
def test_an_error_comes_back_as_the_leaf_that_the_farm_raised(
    client: Client, farm: StubFarm, kind: type[errors.FluxfarmError]
) -> None:
    sent = kind("A sentence that says what to do.", param="promptObject.size")
    farm.next("POST", "/v1/jobs", problem(sent, {"retry-after": "7"}))
    with pytest.raises(errors.FluxfarmError) as caught:
        client.submit(ANYTHING, model="m")
    assert type(caught.value) is kind
    assert caught.value.message == sent.message
    assert caught.value.param == "promptObject.size"
    assert caught.value.retry_after == 7
    assert len(farm.seen("POST", "/v1/jobs")) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, errors.Unavailable),
        (402, errors.BadRequest),
        (404, errors.NotFound),
        (422, errors.BadRequest),
        (500, errors.InternalError),
        (502, errors.Unavailable),
    ],
)
def test_a_code_that_nobody_knows_is_judged_by_its_status(
    client: Client, farm: StubFarm, status: int, kind: type[errors.FluxfarmError]
) -> None:
    body = json.dumps({"code": "from_the_future", "detail": "New."}).encode()
    farm.next("POST", "/v1/jobs", Reply(status, body), Reply(status, b"<html>"))
    for expected in ("from_the_future", str(status)):
        with pytest.raises(kind, match=expected) as caught:
            client.submit(ANYTHING, model="m")
        assert type(caught.value) is kind


def test_a_redirect_is_no_farm_and_names_the_place_to_use(client: Client, farm: StubFarm) -> None:
    farm.next("POST", "/v1/jobs", Reply(308, b"", {"location": "https://real.example/v1/jobs?token=1"}))
    with pytest.raises(errors.Unavailable, match=r"sends on to https://real\.example/v1/jobs;"):
        client.submit(ANYTHING, model="m")


def test_a_get_is_repeated_after_busy_replies_and_broken_connections(client: Client, farm: StubFarm) -> None:
    record = farm.add_job({"prompt": ANYTHING})
    busy = problem(errors.BrokerUnavailable("Down."), {"retry-after": "0"})
    farm.next("GET", f"/v1/jobs/{record.uuid}", busy, Reply(None), busy)
    assert client.get(record.uuid) == record
    assert len(farm.calls) == 4


def test_retry_after_is_kept_and_its_bound_too(client: Client, farm: StubFarm) -> None:
    farm.next("GET", "/v1/models", problem(errors.Unavailable("Busy."), {"retry-after": "1"}))
    begun = time.monotonic()
    assert client.models()
    assert time.monotonic() - begun >= 1
    farm.next("GET", "/v1/models", problem(errors.Unavailable("Busy."), {"retry-after": "3600"}))
    with pytest.raises(errors.Unavailable) as caught:
        client.models()
    assert caught.value.retry_after == 3600


@pytest.mark.parametrize("reply", [Reply(None), problem(errors.Unavailable("Down."), {"retry-after": "0"})])
def test_what_changes_something_is_sent_once(client: Client, farm: StubFarm, reply: Reply) -> None:
    uuid = uuid4()
    for method, path in (("POST", "/v1/jobs"), ("POST", f"/v1/jobs/{uuid}/cancel"), ("DELETE", f"/v1/jobs/{uuid}")):
        farm.next(method, path, reply)
    with pytest.raises(errors.Unavailable):
        client.submit(ANYTHING, model="m")
    with pytest.raises(errors.Unavailable):
        client.cancel(uuid)
    with pytest.raises(errors.Unavailable):
        client.delete(uuid)
    assert len(farm.calls) == 3


def test_a_job_whose_reply_got_lost_is_not_called_refused(client: Client, farm: StubFarm) -> None:
    farm.next("POST", "/v1/jobs", Reply(None))
    with pytest.raises(errors.Unavailable, match="may have been done"):
        client.submit(ANYTHING, model="m")


def test_a_farm_that_hangs_is_asked_once_and_not_for_ever() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        with Client(url, KEY, timeout=0.3, patience=20) as client, pytest.raises(errors.Unavailable, match="broke"):
            client.models()
    assert time.monotonic() - begun < 5


def test_no_farm_there_is_said_with_the_url_and_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with Client(url, KEY, patience=0.2) as client, pytest.raises(errors.Unavailable) as caught:
        client.models()
    assert url in caught.value.message
    assert "fluxfarm up" in caught.value.message


def test_somebody_else_at_the_url_is_recognised(client: Client, farm: StubFarm) -> None:
    farm.next("GET", "/v1/models", Reply(200, b"<html>hello</html>"), json_reply([]), json_reply({"data": [{}]}))
    for _ in range(3):
        with pytest.raises(errors.Unavailable, match="not as a farm"):
            client.models()


def test_a_uuid_is_never_taken_for_a_path(client: Client, farm: StubFarm) -> None:
    for odd in ("../keys", "", "1/cancel", "x" * 5000):
        with pytest.raises(errors.InvalidField):
            client.delete(odd)
    assert not farm.calls
