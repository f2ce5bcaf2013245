"""Calls a minute: exact over several processes, told in every reply, and no hindrance while Valkey is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.testclient import TestClient

from api import open_calls
from api.limits import Rates
from api.main import create_app
from api.open_calls import OpenCalls
from fluxfarm.embedded import free_port
from fluxfarm.errors import TooManyRequests
from fluxfarm.settings import Settings
from storage.database import Database
from storage.keys import digest
from storage.records import Tenant
from storage.repository import policies, tenants
from tests.api.samples import body, rows

NOON = 1_800_000_000.0  #: a whole minute


class Clock:
    """A hand that the test moves."""

    def __init__(self) -> None:
        self.now = NOON + 10

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings.model_copy(update={"rate_limit": 5}))


@pytest.fixture
def api(app: FastAPI, api_key: str, clock: Clock) -> Iterator[TestClient]:
    with TestClient(app, headers={"Authorization": f"Bearer {api_key}"}, follow_redirects=False) as client:
        app.state.farm.rates._clock = clock
        yield client


def test_each_reply_tells_what_is_left(api: TestClient, clock: Clock) -> None:
    left = []
    for path in ("/v1/jobs", "/v1/jobs/x", "/v1/models", "/v1/keys"):
        reply = api.get(path)
        assert reply.headers["ratelimit-policy"] == '"key";q=5;w=60'
        left.append(reply.headers["ratelimit"])
    assert left == ['"key";r=4;t=50', '"key";r=3;t=50', '"key";r=2;t=50', '"key";r=1;t=50']
    assert api.post("/v1/jobs", json=body()).status_code == 202
    refused = api.post("/v1/jobs", json=body())
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
    assert (refused.json()["retryable"], refused.json()["violated-policies"]) == (True, ["key"])
    assert (refused.headers["retry-after"], refused.headers["ratelimit"]) == ("50", '"key";r=0;t=50')
    clock.now = NOON + 60
    assert api.get("/v1/jobs").headers["ratelimit"] == '"key";r=4;t=60'
    assert "ratelimit" not in api.get("/healthz").headers


def test_a_dialect_words_it_its_own_way(api: TestClient) -> None:
    for _ in range(5):
        api.get("/openai/v1/models")
    refused = api.get("/openai/v1/models")
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.headers["retry-after"] == "50"


def test_tenants_and_keys_have_limits_of_their_own(api: TestClient, database: Database, tenant: Tenant) -> None:
    with database.transaction() as session:
        policies.change(session, tenant.id, {"rate_limit": 100})
        small = tenants.create_key(session, tenant.id, "small", ["read"], rate_limit=3)[1]
        large = tenants.create_key(session, tenant.id, "large", ["read"], rate_limit=1000)[1]
    policy = [
        api.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"}).headers["ratelimit-policy"]
        for key in (small, large)
    ]
    assert policy == ['"key";q=3;w=60', '"key";q=100;w=60']


def test_without_a_limit_nothing_is_told(settings: Settings, api_key: str) -> None:
    farm = create_app(settings.model_copy(update={"rate_limit": 0}))
    with TestClient(farm, headers={"API-KEY": api_key}) as client:
        assert "ratelimit" not in client.get("/v1/jobs").headers


def test_processes_share_a_quota(settings: Settings, database: Database, api_key: str) -> None:
    limited = settings.model_copy(update={"rate_limit": 500})

    async def call() -> list[int]:
        processes = [Rates(limited, database, Clock()) for _ in range(4)]
        passed = [0, 0, 0, 0]

        async def caller(number: int) -> None:
            for _ in range(60):
                standing = await processes[number % 4].spend(digest(api_key))
                assert standing is not None
                passed[number % 4] += not standing.is_over

        await asyncio.gather(*(caller(number) for number in range(16)))
        for process in processes:
            process.close()
        return passed

    passed = asyncio.run(call())
    assert sum(passed) == 500, passed


def test_unknown_keys_leave_nothing_behind(settings: Settings, database: Database) -> None:
    async def call() -> None:
        rates = Rates(settings, database, Clock())
        assert await rates.spend(digest("ff_live_nobody")) is None
        rates.close()

    asyncio.run(call())


def test_with_valkey_away_every_call_passes(settings: Settings, api_key: str, database: Database) -> None:
    gone = {"redis_url": SecretStr(f"redis://127.0.0.1:{free_port()}"), "rate_limit": 1}
    with TestClient(create_app(settings.model_copy(update=gone)), headers={"API-KEY": api_key}) as client:
        started = time.monotonic()
        replies = [client.post("/v1/jobs", json=body()) for _ in range(3)]
        assert time.monotonic() - started < 5
    assert [reply.status_code for reply in replies] == [202, 202, 202]
    assert "ratelimit" not in replies[0].headers
    assert rows(database)["jobs"] == 3


def test_calls_that_are_open_are_limited_and_a_closed_one_makes_room(settings: Settings, api_key: str) -> None:
    few = create_app(settings.model_copy(update={"open_calls": 2}))
    with (
        TestClient(few, headers={"Authorization": f"Bearer {api_key}"}) as api,
        ThreadPoolExecutor(2) as pool,
    ):
        uuid = api.post("/v1/jobs", json=body()).json()["aiRecord"]["uuid"]
        polls = [pool.submit(api.get, f"/v1/jobs/{uuid}?wait=30") for _ in range(2)]
        here, end = few.state.farm.open_calls._here, time.monotonic() + 10
        while here != {digest(api_key).hex()[:32]: 2}:
            assert time.monotonic() < end
            time.sleep(0.01)
        refused = api.get("/v1/jobs")
        assert (refused.json()["code"], refused.json()["violated-policies"]) == ("too_many_requests", ["open-calls"])
        assert refused.headers["retry-after"] == "1"
        assert api.get("/healthz").status_code == 200
        few.state.farm.open_calls._most = 3  # room to cancel it, which ends both
        assert api.post(f"/v1/jobs/{uuid}/cancel").status_code == 200
        assert [poll.result(10).status_code for poll in polls] == [200, 200]
        assert not here


def test_what_is_open_in_another_process_counts(settings: Settings) -> None:
    few, key = settings.model_copy(update={"open_calls": 2}), digest("ff_live_x")

    async def rounds() -> None:
        here, there = OpenCalls(few), OpenCalls(few)
        try:
            entered = [there.enter(key), there.enter(key)]
            await there._round()
            await here._round()
            with pytest.raises(TooManyRequests):
                here.enter(key)
            here.enter(digest("ff_live_y"))
            there.leave(entered.pop())
            await there._round()
            await here._round()
            here.enter(key)
        finally:
            await here._redis.aclose()
            await there._redis.aclose()

    asyncio.run(rounds())


def test_no_word_of_another_process_ends_the_rounds(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_calls, "ROUND", 0.01)
    few, key = settings.model_copy(update={"open_calls": 1}), digest("ff_live_z")

    async def rounds() -> None:
        idle, there = OpenCalls(few), OpenCalls(few)
        sharing = asyncio.create_task(idle.share())
        try:
            await there._redis.sadd(open_calls.PROCESSES, "fluxfarm:open:other")
            await there._redis.set("fluxfarm:open:other", "no JSON")
            async with asyncio.timeout(10):
                while not idle._away:  # noqa: ASYNC110 - it has no event
                    await asyncio.sleep(0.01)
            await there._redis.delete("fluxfarm:open:other")
            there.enter(key)
            await there._round()
            async with asyncio.timeout(10):
                while not idle._elsewhere:  # noqa: ASYNC110 - no call of its own is open
                    await asyncio.sleep(0.01)
            with pytest.raises(TooManyRequests):
                idle.enter(key)
        finally:
            idle.close()
            await sharing
            await there._redis.aclose()

    asyncio.run(rounds())


def test_without_valkey_each_process_counts_alone(settings: Settings) -> None:
    away = SecretStr(f"redis://127.0.0.1:{free_port()}/0")

    async def rounds() -> None:
        alone = OpenCalls(settings.model_copy(update={"open_calls": 1, "redis_url": away}))
        try:
            alone.enter(b"key")
            await alone._round()
            with pytest.raises(TooManyRequests):
                alone.enter(b"key")
        finally:
            await alone._redis.aclose()

    asyncio.run(rounds())
