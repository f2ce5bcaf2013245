"""``Idempotency-Key`` and ``externalId`` as a caller meets them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from starlette.testclient import TestClient

from api.idempotency import parse_key
from api.main import create_app
from fluxfarm.errors import DatabaseUnavailable, InvalidIdempotencyKey, UnreachableUrl
from fluxfarm.settings import Settings
from storage.database import Database
from storage.objects import ObjectStore
from storage.repository import idempotency
from tests.api.samples import Hand, body, picture, rows
from tests.e2e.farms import wait_for

KEY = {"Idempotency-Key": "order-7"}
PICTURE_URL = "https://pictures.example/a.png"


def post(api: Any, asked: dict[str, Any] | None = None, key: str | None = "order-7", **headers: str) -> Any:
    given = {} if key is None else {"Idempotency-Key": key}
    return api.post("/v1/jobs", json=asked or body(), headers=given | headers)


def kept(database: Database) -> int:
    with database.engine.connect() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM idempotency_keys")) or 0)


def code(reply: Any) -> tuple[int, str]:
    return reply.status_code, reply.json()["code"]


# --- the header ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ([], None),
        (["abc"], "abc"),
        ([' "abc" '], "abc"),
        (['"a\\"b\\\\c"'], 'a"b\\c'),
        (['a"b'], 'a"b'),
        (["x" * 255], "x" * 255),
        (['"' + "x" * 255 + '"'], "x" * 255),
    ],
)
def test_quoted_and_bare_keys_are_read(values: list[str], key: str | None) -> None:
    assert parse_key(values) == key


@pytest.mark.parametrize(
    "values",
    [[""], [" "], ['""'], ['"abc'], ['"a"b"'], ['"abc";a=1'], ["a b"], ["ä"], ["x" * 256], ["x" * 10_240], ["a", "a"]],
)
def test_other_keys_are_refused(values: list[str]) -> None:
    with pytest.raises(InvalidIdempotencyKey):
        parse_key(values)


@pytest.mark.parametrize("key", ["", "x" * 256, "x" * 10_240, "a b", '"half'])
def test_a_bad_key_is_a_400_and_stores_nothing(api: TestClient, database: Database, key: str) -> None:
    assert code(post(api, key=key)) == (400, "invalid_idempotency_key")
    assert (rows(database)["jobs"], kept(database)) == (0, 0)


# --- replays ---------------------------------------------------------------------------------------------------------


def test_the_same_call_again_shows_the_same_job(api: TestClient, database: Database) -> None:
    first, again, quoted = post(api), post(api), post(api, key='"order-7"')
    assert first.status_code == again.status_code == quoted.status_code == 202
    assert again.json() == quoted.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert (again.headers["idempotency-replayed"], again.headers["retry-after"]) == ("true", "1")
    assert "idempotency-replayed" not in first.headers
    assert (rows(database)["jobs"], kept(database)) == (1, 1)


def test_spaces_and_order_of_names_are_no_other_call(api: TestClient) -> None:
    headers = {"Content-Type": "application/json"} | KEY
    one = '{"type":"IMAGE_GENERATOR","model":"flux-2-klein-small","promptObject":{"prompt":"a fox"}}'
    other = '{ "promptObject": {"prompt": "a \\u0066ox"}, "model": "flux-2-klein-small", "type": "IMAGE_GENERATOR" }'
    first = api.post("/v1/jobs", content=one, headers=headers)
    again = api.post("/v1/jobs", content=other, headers=headers)
    assert again.json() == first.json()


def test_a_replay_shows_the_job_as_it_is_now_with_fresh_links(api: TestClient, database: Database, hand: Hand) -> None:
    uuid = post(api).json()["aiRecord"]["uuid"]
    hand.finish(hand.claim(uuid), (b"one",))
    again = post(api)
    record = again.json()["aiRecord"]
    assert (again.status_code, record["uuid"], record["status"]) == (202, uuid, "SUCCESS")
    assert "retry-after" not in again.headers
    assert api.get(record["temporaryUrl"]).content == b"one"
    waited = post(api, Prefer="wait=5")
    assert (waited.status_code, waited.headers["preference-applied"]) == (200, "wait=5")
    with database.engine.connect() as connection:
        row = connection.execute(text("SELECT * FROM idempotency_keys")).mappings().one()
    assert not any("fox" in str(value) or "signature" in str(value) for value in row.values())


def test_another_call_with_the_key_is_refused(api: TestClient, database: Database) -> None:
    post(api)
    refused = post(api, body({"prompt": "a wolf"}))
    assert code(refused) == (422, "idempotency_key_reused")
    assert refused.json()["retryable"] is False
    assert rows(database)["jobs"] == 1


def test_tenants_are_independent(api: TestClient, other_key: str) -> None:
    own = post(api)
    theirs = post(api, body({"prompt": "a wolf"}), Authorization=f"Bearer {other_key}")
    assert (theirs.status_code, "idempotency-replayed" in theirs.headers) == (202, False)
    assert theirs.json()["aiRecord"]["uuid"] != own.json()["aiRecord"]["uuid"]


def test_what_is_refused_stores_nothing_and_may_be_mended(api: TestClient, database: Database) -> None:
    assert code(post(api, body({"n": 99}))) == (400, "invalid_field")
    assert kept(database) == 0
    assert post(api).status_code == 202


def test_a_replay_is_no_mistake_when_its_deadline_has_passed(api: TestClient, database: Database) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()
    first = post(api, body(deadline=soon))
    assert first.status_code == 202, first.text
    while datetime.now(UTC) <= datetime.fromisoformat(soon):
        threading.Event().wait(0.05)
    assert post(api, body(deadline=soon)).json()["aiRecord"]["uuid"] == first.json()["aiRecord"]["uuid"]
    assert code(post(api, body(deadline=soon), key=None)) == (400, "invalid_field")
    assert rows(database)["jobs"] == 1


def test_erasing_the_job_erases_its_key(api: TestClient, database: Database) -> None:
    first = post(api).json()["aiRecord"]["uuid"]
    assert api.delete(f"/v1/jobs/{first}").status_code == 204
    assert kept(database) == 0
    assert post(api).json()["aiRecord"]["uuid"] != first


def test_fifty_at_once_are_one_job(server: str, api_key: str, database: Database) -> None:
    headers = {"Authorization": f"Bearer {api_key}"}
    limits = httpx.Limits(max_connections=50)
    with (
        httpx.Client(base_url=server, headers=headers, timeout=30, trust_env=False, limits=limits) as web,
        ThreadPoolExecutor(50) as pool,
    ):
        replies = list(pool.map(lambda _: post(web), range(50)))
    assert {reply.status_code for reply in replies} == {202}, {reply.text for reply in replies}
    assert len({reply.json()["aiRecord"]["uuid"] for reply in replies}) == 1
    assert sum("idempotency-replayed" not in reply.headers for reply in replies) == 1
    assert (rows(database)["jobs"], kept(database)) == (1, 1)


# --- while pictures are fetched --------------------------------------------------------------------------------------


class Slow:
    """A stranger's server that answers when it is told to; ``broken`` answers never."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.answers = threading.Event()
        self.broken = False

    def __call__(self, _url: str) -> bytes:
        self.asked.set()
        assert self.answers.wait(20)
        if self.broken:
            raise UnreachableUrl("It did not answer.")
        return picture()


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def app(settings: Settings, slow: Slow) -> FastAPI:
    return create_app(settings, fetch=slow)


@pytest.fixture
def first(api: TestClient, slow: Slow) -> Iterator[Callable[[], Any]]:
    """A call that fetches a picture just now; its reply comes when the server of the picture has answered."""
    with ThreadPoolExecutor(1) as pool:
        posted = pool.submit(post, api, edit())

        def answered() -> Any:
            slow.answers.set()
            return posted.result(timeout=20)

        try:
            assert slow.asked.wait(10)
            yield answered
        finally:
            slow.answers.set()


def edit() -> dict[str, Any]:
    return body({"images": [PICTURE_URL]}, type="IMAGE_EDITOR")


def test_a_call_in_flight_is_told(api: TestClient, first: Callable[[], Any], database: Database) -> None:
    twin = post(api, edit())
    assert code(twin) == (409, "idempotency_in_flight")
    assert (twin.headers["retry-after"], twin.json()["retryable"]) == ("2", True)
    assert code(post(api)) == (422, "idempotency_key_reused")
    done = first()
    assert done.status_code == 202, done.text
    assert post(api, edit()).json() == done.json()
    assert rows(database)["jobs"] == 1


def test_a_call_that_fails_gives_its_key_up(
    api: TestClient, first: Callable[[], Any], slow: Slow, database: Database
) -> None:
    slow.broken = True
    assert code(first()) == (400, "unreachable_url")
    assert kept(database) == 0
    slow.broken = False
    assert post(api, edit()).status_code == 202


def test_a_key_that_cannot_be_given_up_is_given_up_when_the_database_is_back(
    api: TestClient, first: Callable[[], Any], slow: Slow, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_up, tried = idempotency.release, threading.Event()

    def away_once(*call: Any) -> None:
        if not tried.is_set():
            tried.set()
            raise DatabaseUnavailable("The database is away.")
        give_up(*call)

    monkeypatch.setattr(idempotency, "release", away_once)
    slow.broken = True
    assert code(first()) == (400, "unreachable_url")
    assert tried.is_set()
    wait_for(lambda: kept(database) == 0, 10)
    slow.broken = False
    assert post(api, edit()).status_code == 202


def test_a_call_that_was_overtaken_stores_nothing(
    api: TestClient, first: Callable[[], Any], slow: Slow, database: Database, store: ObjectStore
) -> None:
    with database.engine.begin() as connection:  # as if the process of the first call had died two minutes ago
        connection.execute(text("UPDATE idempotency_keys SET expires_at = now() - interval '1 second'"))
    slow.asked.clear()
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(post, api, edit())
        assert slow.asked.wait(10)
        replies = [first(), second.result(timeout=20)]
    assert sorted(reply.status_code for reply in replies) == [202, 409], [reply.text for reply in replies]
    assert rows(database)["jobs"] == 1
    uuid = next(reply.json()["aiRecord"]["uuid"] for reply in replies if reply.status_code == 202)
    assert [uuid in key for key in store.keys("t/")] == [True]


@pytest.mark.parametrize(("may_be_done", "left"), [(True, 1), (False, 0)])
def test_a_lost_answer_to_the_commit_leaves_the_pictures(
    api: TestClient, slow: Slow, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, may_be_done: bool, left: int
) -> None:
    def lose(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("The connection broke, in COMMIT or before.", may_be_done=may_be_done)

    slow.answers.set()
    monkeypatch.setattr("storage.repository.jobs.create", lose)
    assert code(post(api, edit())) == (503, "database_unavailable")
    assert len(list(store.keys("t/"))) == left  # a job that may be there must find its picture


# --- external ids ----------------------------------------------------------------------------------------------------


def test_an_external_id_names_one_job(api: TestClient, other_key: str, database: Database) -> None:
    first = post(api, body(externalId="order 7"), key=None).json()["aiRecord"]
    assert first["externalId"] == "order 7"
    taken = post(api, body(externalId="order 7"), key="another")
    assert code(taken) == (409, "external_id_taken")
    assert (taken.json()["job"], taken.json()["param"]) == (first["uuid"], "externalId")
    assert kept(database) == 0
    theirs = post(api, body(externalId="order 7"), key=None, Authorization=f"Bearer {other_key}")
    assert theirs.status_code == 202
    post(api, body(externalId="order 8"), key=None)
    listed = api.get("/v1/jobs", params={"externalId": "order 7"}).json()["data"]
    assert [record["uuid"] for record in listed] == [first["uuid"]]
    assert api.get("/v1/jobs", params={"externalId": "none"}).json()["data"] == []


def test_a_key_replays_before_the_external_id_is_looked_at(api: TestClient) -> None:
    first, again = (post(api, body(externalId="order 7")) for _ in range(2))
    assert (again.status_code, again.json()) == (202, first.json())


@pytest.mark.parametrize("name", ["", "x" * 201, "a\tb", "a\x7fb", 7])
def test_bad_external_ids(api: TestClient, name: object) -> None:
    refused = post(api, body(externalId=name), key=None)
    assert (*code(refused), refused.json()["param"]) == (400, "invalid_field", "externalId")
