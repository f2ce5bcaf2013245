from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from redis import Redis
from sqlalchemy import text
from starlette.testclient import TestClient

from fluxfarm.settings import Settings
from storage.database import Database
from storage.dispatcher import Dispatcher
from storage.objects import ObjectStore, job_prefix
from storage.queue import Queue
from storage.records import Tenant, Worker
from storage.repository import jobs, workers
from storage.repository.turns import Claim
from tests.api.samples import BROKEN, SMALL, Hand, body, rows
from workers.sweeping import OVERDUE

QUEUE = "local.flux-2-klein-small"


def accept(api: TestClient, **changes: object) -> str:
    accepted = api.post("/v1/jobs", json=body(None, **changes))
    assert accepted.status_code == 202, accepted.text
    return str(accepted.json()["aiRecord"]["uuid"])


def test_a_job_is_accepted_sent_to_the_broker_and_read(api: TestClient, settings: Settings) -> None:
    accepted = api.post("/v1/jobs", json=body({"n": 2, "seed": 7}, tags=["a", "b", "a"], lane="bulk"))
    assert accepted.status_code == 202, accepted.text
    record = accepted.json()["aiRecord"]
    assert record["status"] == "QUEUED"
    assert record["tags"] == ["a", "b"]
    assert record["lane"] == "bulk"
    assert record["aiRecordDetail"] == {
        "promptObject": {"prompt": "a fox", "size": "64x64", "n": 2, "seed": 7},
        "resultObject": [],
    }
    assert record["progress"] == {"step": 0, "steps": 16}
    assert accepted.headers["location"] == record["links"]["self"]
    assert accepted.headers["retry-after"] == "1"
    read = api.get(f"/v1/jobs/{record['uuid']}")
    assert read.json()["aiRecord"] == record
    with Redis.from_url(settings.redis_url.get_secret_value()) as redis:
        assert redis.llen(QUEUE) == 1


def test_the_stored_request_is_exact(api: TestClient, database: Database, tenant: Tenant) -> None:
    asked = {"size": None, "aspect_ratio": "16:9", "megapixels": 0.25, "n": 2, "seed": 2**63 - 1, "steps": 3}
    more = {"guidance": 2, "output_format": "jpg", "output_quality": 0, "go_fast": True, "prompt_strength": 0.5}
    reply = api.post("/v1/jobs", json=body({**asked, **more}, model="FLUX-2-klein-small"))
    assert reply.status_code == 202, reply.text
    assert reply.json()["aiRecord"]["model"] == SMALL
    with database.transaction() as session:
        request = jobs.read(session, tenant.id, UUID(reply.json()["aiRecord"]["uuid"])).render_request
    assert str(request.size) == "683x384"
    assert request.seeds == (2**63 - 1, 0)
    assert (request.steps, request.guidance, request.output_format, request.output_quality) == (3, 2.0, "jpeg", 0)
    assert set(request.ignored) == {"go_fast", "prompt_strength"}


def test_sizes_that_another_field_overrules_are_told(api: TestClient, database: Database, tenant: Tenant) -> None:
    reply = api.post("/v1/jobs", json=body({"size": "64x96", "width": 128, "height": 128, "resolution": "1K"}))
    with database.transaction() as session:
        request = jobs.read(session, tenant.id, UUID(reply.json()["aiRecord"]["uuid"])).render_request
    assert str(request.size) == "64x96"
    assert request.ignored == ("width", "height", "resolution")


def test_a_finished_job_has_links_that_work(api: TestClient, hand: Hand) -> None:
    uuid = accept(api)
    keys = hand.finish(hand.claim(uuid), (b"one", b"two"))
    reply = api.get(f"/v1/jobs/{uuid}")
    assert "retry-after" not in reply.headers
    record = reply.json()["aiRecord"]
    assert record["status"] == "SUCCESS"
    assert record["aiRecordDetail"]["resultObject"] == keys
    assert record["temporaryUrl"] == record["temporaryUrls"][0]
    assert [api.get(url).content for url in record["temporaryUrls"]] == [b"one", b"two"]
    assert record["attempts"][0]["worker"] == "hand"
    asset = api.get(record["links"]["assets"][1])
    assert asset.status_code == 302
    assert api.get(asset.headers["location"]).content == b"two"
    assert api.get(f"/v1/assets/{uuid}/2").status_code == 404


def test_cancel_stops_and_then_conflicts(api: TestClient, hand: Hand) -> None:
    uuid = accept(api)
    hand.claim(uuid)
    canceled = api.post(f"/v1/jobs/{uuid}/cancel")
    assert canceled.status_code == 200, canceled.text
    record = canceled.json()["aiRecord"]
    assert record["status"] == "CANCELED"
    assert record["error"]["code"] == "canceled"
    assert record["attempts"][0]["status"] == "CANCELED"
    again = api.post(f"/v1/jobs/{uuid}/cancel")
    assert again.status_code == 409
    assert again.json()["code"] == "conflict"
    assert "CANCELED" in again.json()["detail"]


def test_erase_takes_everything(
    api: TestClient, hand: Hand, database: Database, store: ObjectStore, tenant: Tenant
) -> None:
    uuid = accept(api)
    keys = hand.finish(hand.claim(uuid))
    assert store.stat(keys[0]) is not None
    erased = api.delete(f"/v1/jobs/{uuid}")
    assert (erased.status_code, erased.content) == (204, b"")
    assert rows(database) == dict.fromkeys(rows(database), 0)
    assert list(store.keys(job_prefix(tenant.id, UUID(uuid)))) == []
    assert api.get(f"/v1/jobs/{uuid}").status_code == 404
    assert api.delete(f"/v1/jobs/{uuid}").status_code == 404


def test_pages_are_stable_while_jobs_come_in(api: TestClient) -> None:
    before = [accept(api) for _ in range(5)]
    first = api.get("/v1/jobs", params={"limit": 2}).json()
    accept(api)
    second = api.get("/v1/jobs", params={"limit": 2, "cursor": first["nextCursor"]}).json()
    accept(api)
    third = api.get("/v1/jobs", params={"limit": 2, "cursor": second["nextCursor"]}).json()
    seen = [record["uuid"] for page in (first, second, third) for record in page["data"]]
    assert seen == before[::-1]
    assert third["nextCursor"] is None


def test_filters(api: TestClient, hand: Hand) -> None:
    plain, tagged, failed = accept(api), accept(api, tags=["spring sale"]), accept(api)
    hand.fail(hand.claim(failed))

    def found(**params: str) -> list[str]:
        reply = api.get("/v1/jobs", params=params)
        assert reply.status_code == 200, reply.text
        return [record["uuid"] for record in reply.json()["data"]]

    assert found(tag="spring sale") == [tagged]
    assert found(status="FAILED") == found(error=BROKEN.code) == [failed]
    assert found(status="QUEUED") == [tagged, plain]
    assert found(campaign="none") == []


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("staus=FAILED", "unknown_field", "staus"),
        ("status=DONE", "invalid_field", "status"),
        ("limit=0", "invalid_field", "limit"),
        ("limit=201", "invalid_field", "limit"),
        ("limit=1e400", "invalid_field", "limit"),
        ("cursor=nonsense", "invalid_field", "cursor"),
        ("cursor=MTow%00", "invalid_field", "cursor"),
        ("tag=a%00b", "invalid_field", "tag"),
    ],
)
def test_bad_queries(api: TestClient, query: str, code: str, param: str) -> None:
    reply = api.get(f"/v1/jobs?{query}")
    assert reply.status_code == 400
    assert (reply.json()["code"], reply.json()["param"]) == (code, param)


def test_explain_tells_the_place_and_the_workers(api: TestClient, hand: Hand, database: Database) -> None:
    bulk, first, second = accept(api, lane="bulk"), accept(api), accept(api)
    alone = api.get(f"/v1/jobs/{second}/explain").json()
    assert (alone["place"], alone["workers"], alone["status"]) == (1, 0, "QUEUED")
    assert "No live worker" in alone["reason"]
    with database.transaction() as session:
        workers.register(
            session,
            Worker(
                id=uuid4(),
                name="box",
                pid=1,
                provider="local",
                queues=[QUEUE],
                models=[SMALL],
                device="cpu",
                slots=1,
                state="ready",
                started_at=datetime.now(UTC),
                heartbeat_at=datetime.now(UTC),
            ),
        )
    behind = api.get(f"/v1/jobs/{bulk}/explain").json()
    assert (behind["place"], behind["workers"]) == (2, 1)
    ahead = api.get(f"/v1/jobs/{first}/explain").json()
    now = datetime.now(UTC)
    etas = [datetime.fromisoformat(told["eta"]) for told in (ahead, behind)]
    assert now < etas[0] < etas[1] < now + timedelta(seconds=30)
    assert alone["eta"] is None, "without a worker nobody can say"
    assert behind["reason"] == f"2 jobs go before it in the queue {QUEUE}."
    claimed = hand.claim(first)
    hand.report(claimed, 3, 8)
    assert "step 3 of 8" in api.get(f"/v1/jobs/{first}/explain").json()["reason"]
    hand.fail(claimed)
    assert api.get(f"/v1/jobs/{first}/explain").json()["reason"] == BROKEN.message
    assert api.get("/v1/workers").json()["data"][0]["name"] == "box"
    assert api.get("/v1/models/flux-2-klein-small").json()["ready"] is True


def test_the_place_is_a_fair_one(api: TestClient, other_key: str) -> None:
    own = [accept(api) for _ in range(5)]
    theirs = {"Authorization": f"Bearer {other_key}"}
    rival = api.post("/v1/jobs", json=body(), headers=theirs).json()["aiRecord"]["uuid"]
    place = api.get(f"/v1/jobs/{rival}/explain", headers=theirs).json()["place"]
    assert place <= 1
    places = [api.get(f"/v1/jobs/{uuid}/explain").json()["place"] for uuid in own]
    assert sorted([*places, place]) == list(range(6))
    assert places == sorted(places)


def test_a_deadline_is_kept(api: TestClient) -> None:
    moment = datetime.now(UTC) + timedelta(hours=1)
    reply = api.post("/v1/jobs", json=body(deadline=moment.isoformat()))
    assert reply.status_code == 202, reply.text
    assert datetime.fromisoformat(reply.json()["aiRecord"]["deadline"]) == moment.replace(
        microsecond=moment.microsecond // 1000 * 1000
    )


def test_what_cannot_start_in_time_is_canceled(api: TestClient, database: Database, settings: Settings) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    late, other = accept(api, deadline=soon), accept(api, deadline=soon)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET deadline = now() WHERE uuid = :uuid"), {"uuid": late})
    Dispatcher(database, Queue(settings), window=2).ripen(OVERDUE)
    record = api.get(f"/v1/jobs/{late}").json()["aiRecord"]
    assert (record["status"], record["error"]["code"], record["attempts"]) == ("CANCELED", "deadline", [])
    assert record["finishedAt"] is not None
    assert api.get("/v1/jobs", params={"error": "deadline"}).json()["data"] == [record]
    assert api.get(f"/v1/jobs/{other}").json()["aiRecord"]["status"] == "QUEUED"


@pytest.mark.parametrize("ended", ["SUCCESS", "FAILED"])
def test_cancel_of_what_is_over_names_its_state(api: TestClient, hand: Hand, ended: str) -> None:
    uuid = accept(api)
    claimed = hand.claim(uuid)
    hand.finish(claimed) if ended == "SUCCESS" else hand.fail(claimed)
    refused = api.post(f"/v1/jobs/{uuid}/cancel")
    assert (refused.status_code, refused.json()["code"], refused.json()["retryable"]) == (409, "conflict", False)
    assert ended in refused.json()["detail"]
    assert api.get(f"/v1/jobs/{uuid}").json()["aiRecord"]["status"] == ended


def test_a_cancel_that_races_with_success_is_told_as_it_ended(api: TestClient, hand: Hand) -> None:
    for _ in range(5):
        uuid = accept(api)
        claimed = hand.claim(uuid)
        with ThreadPoolExecutor(2) as pool:
            canceled = pool.submit(api.post, f"/v1/jobs/{uuid}/cancel")
            finished = pool.submit(_won, hand, claimed)
        won = finished.result()
        assert canceled.result().status_code == (409 if won else 200)
        record = api.get(f"/v1/jobs/{uuid}").json()["aiRecord"]
        assert record["status"] == ("SUCCESS" if won else "CANCELED")
        assert len(record["temporaryUrls"]) == (1 if won else 0)


def _won(hand: Hand, claimed: Claim) -> bool:
    try:
        hand.finish(claimed)
    except AssertionError:  # the hand's own: the attempt had lost the job
        return False
    return True


def test_models_are_listed_with_their_limits(api: TestClient) -> None:
    models = {model["id"]: model for model in api.get("/v1/models").json()["data"]}
    assert models[SMALL]["local"] is True
    assert models[SMALL]["ready"] is False
    assert models["black-forest-labs/flux-2-pro"]["local"] is False
    assert models["black-forest-labs/flux-2-dev"]["steps"] == {"low": 1, "high": 50, "default": 28}
    assert api.get("/v1/models/@cf/black-forest-labs/flux-2-dev").json()["id"] == "black-forest-labs/flux-2-dev"
    missing = api.get("/v1/models/sdxl")
    assert (missing.status_code, missing.json()["code"]) == (404, "model_not_found")


def test_head_has_the_headers_of_get_and_no_body(api: TestClient) -> None:
    uuid = accept(api)
    got, headed = api.get(f"/v1/jobs/{uuid}"), api.head(f"/v1/jobs/{uuid}")
    assert headed.status_code == 200
    assert headed.content == b""
    assert headed.headers["content-length"] == got.headers["content-length"]
    assert api.head(f"/v1/jobs/{uuid4()}").status_code == 404
