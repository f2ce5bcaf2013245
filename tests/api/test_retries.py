"""The dead letters: looked at, and tried again, one by one or all that fit."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis import Redis
from sqlalchemy import text
from starlette.testclient import TestClient

from fluxfarm.airecord import Problem
from fluxfarm.settings import Settings
from storage.database import Database
from storage.objects import ObjectStore, job_prefix
from storage.records import Job, Tenant
from storage.repository import jobs
from tests.api.samples import BROKEN, Hand, body, picture, rows

LOST = Problem(code="worker_lost", message="The worker died.", retryable=False)


def accept(api: TestClient, asked: dict[str, Any] | None = None) -> str:
    accepted = api.post("/v1/jobs", json=asked or body())
    assert accepted.status_code == 202, accepted.text
    return str(accepted.json()["aiRecord"]["uuid"])


def failed(api: TestClient, hand: Hand, asked: dict[str, Any] | None = None, problem: Problem = BROKEN) -> str:
    uuid = accept(api, asked)
    hand.fail(hand.claim(uuid), problem)
    return uuid


def edit(*images: str) -> dict[str, Any]:
    return body({"images": list(images)}, type="IMAGE_EDITOR")


def inline(width: int = 96) -> str:
    return "data:image/png;base64," + base64.b64encode(picture(width)).decode()


def code(reply: Any) -> tuple[int, str]:
    return reply.status_code, reply.json()["code"]


def references(database: Database, tenant: Tenant, uuid: str) -> tuple[str, ...]:
    with database.transaction() as session:
        return jobs.read(session, tenant.id, UUID(uuid)).render_request.references


# --- one -------------------------------------------------------------------------------------------------------------


def test_a_failed_job_is_tried_again_as_a_new_one(
    api: TestClient, hand: Hand, database: Database, tenant: Tenant, settings: Settings
) -> None:
    old = failed(api, hand, body({"seed": 7, "n": 2}, tags=["spring"], lane="bulk"))
    reply = api.post(f"/v1/jobs/{old}/retry")
    assert reply.status_code == 202, reply.text
    record = reply.json()["aiRecord"]
    assert reply.headers["location"].endswith(f"/v1/jobs/{record['uuid']}")
    assert (record["status"], record["retryOf"], record["error"]) == ("QUEUED", old, None)
    assert (record["lane"], record["tags"], record["attempts"]) == ("bulk", ["spring"], [])
    with database.transaction() as session:
        assert jobs.read(session, tenant.id, UUID(record["uuid"])).render_request.seeds == (7, 8)
    was = api.get(f"/v1/jobs/{old}").json()["aiRecord"]
    assert (was["status"], was["retryOf"]) == ("FAILED", None)
    with Redis.from_url(settings.redis_url.get_secret_value()) as redis:
        assert redis.llen("local.flux-2-klein-small") == 2  # the ticket of the first job was never read
    hand.finish(hand.claim(record["uuid"]))
    assert api.get(f"/v1/jobs/{record['uuid']}").json()["aiRecord"]["status"] == "SUCCESS"


def test_a_canceled_job_may_be_tried_again_and_a_good_or_waiting_one_not(api: TestClient, hand: Hand) -> None:
    uuid = accept(api)
    queued = api.post(f"/v1/jobs/{uuid}/retry")
    assert code(queued) == (409, "conflict")
    assert "QUEUED" in queued.json()["detail"]
    api.post(f"/v1/jobs/{uuid}/cancel")
    again = api.post(f"/v1/jobs/{uuid}/retry").json()["aiRecord"]["uuid"]
    hand.finish(hand.claim(again))
    done = api.post(f"/v1/jobs/{again}/retry")
    assert code(done) == (409, "conflict")
    assert "SUCCESS" in done.json()["detail"]


def test_a_second_retry_names_the_first(api: TestClient, hand: Hand, database: Database) -> None:
    old = failed(api, hand)
    new = api.post(f"/v1/jobs/{old}/retry").json()["aiRecord"]["uuid"]
    twice = api.post(f"/v1/jobs/{old}/retry")
    assert (*code(twice), twice.json()["job"]) == (409, "already_retried", new)
    assert rows(database)["jobs"] == 2


def test_what_was_wished_without_providers_is_kept_for_the_retry(
    api: TestClient, hand: Hand, database: Database
) -> None:
    new = api.post(f"/v1/jobs/{failed(api, hand, body(maxCost='0.02', fallback=[]))}/retry").json()["aiRecord"]["uuid"]
    plain = accept(api)
    with database.transaction() as session:
        route = session.get_one(Job, UUID(new)).route
        assert route is not None
        assert (route["wish"]["maxCost"], route["wish"]["fallback"]) == ("0.02", [])
        assert session.get_one(Job, UUID(plain)).route is None


def test_the_same_key_gives_the_same_retry(api: TestClient, hand: Hand) -> None:
    old, key = failed(api, hand), {"Idempotency-Key": "again"}
    first, again = (api.post(f"/v1/jobs/{old}/retry", headers=key) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    other = api.post(f"/v1/jobs/{failed(api, hand)}/retry", headers=key)
    assert code(other) == (422, "idempotency_key_reused")


def test_another_tenants_job_is_no_job(api: TestClient, hand: Hand, other_key: str, database: Database) -> None:
    old, theirs = failed(api, hand), {"Authorization": f"Bearer {other_key}"}
    assert code(api.post(f"/v1/jobs/{old}/retry", headers=theirs)) == (404, "not_found")
    assert code(api.post(f"/v1/jobs/{uuid4()}/retry")) == (404, "not_found")
    assert api.post("/v1/jobs/retry", json={}, headers=theirs).json()["retried"] == 0
    assert rows(database)["jobs"] == 1


def test_the_new_job_has_pictures_of_its_own(
    api: TestClient, hand: Hand, database: Database, store: ObjectStore, tenant: Tenant
) -> None:
    uploaded = api.post("/v1/references", files={"file": ("a.png", picture(), "image/png")}).json()["id"]
    old = failed(api, hand, edit(inline(), uploaded))
    new = api.post(f"/v1/jobs/{old}/retry").json()["aiRecord"]["uuid"]
    before, after = references(database, tenant, old), references(database, tenant, new)
    assert before[1] == after[1]
    assert after[0].startswith(job_prefix(tenant.id, UUID(new)))
    assert store.get(after[0]) == store.get(before[0])
    assert api.delete(f"/v1/jobs/{old}").status_code == 204
    assert store.stat(before[0]) is None
    assert store.stat(after[0]) is not None
    assert api.get(f"/v1/jobs/{new}").json()["aiRecord"]["retryOf"] is None


def test_a_picture_that_is_gone_is_told(
    api: TestClient, hand: Hand, database: Database, store: ObjectStore, tenant: Tenant
) -> None:
    old = failed(api, hand, edit(inline(), inline(128)))
    key = references(database, tenant, old)[1]
    store.delete_prefix(key.rpartition("/")[0] + "/")
    gone = api.post(f"/v1/jobs/{old}/retry", headers={"Idempotency-Key": "again"})
    assert code(gone) == (409, "reference_gone")
    assert rows(database)["jobs"] == 1
    assert list(store.keys("t/")) == []
    with database.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM idempotency_keys")) == 0
    bulk = api.post("/v1/jobs/retry", json={}).json()
    assert bulk == {"retried": 0, "jobs": [], "skipped": [{"job": old, "code": "reference_gone"}], "nextCursor": None}


# --- many ------------------------------------------------------------------------------------------------------------


def test_the_dead_letters_are_listed_and_all_tried_again_once(api: TestClient, hand: Hand) -> None:
    broken = [failed(api, hand) for _ in range(3)]
    lost = failed(api, hand, problem=LOST)
    accept(api)
    listed = api.get("/v1/jobs", params={"status": "FAILED", "error": BROKEN.code}).json()["data"]
    assert [record["uuid"] for record in listed] == broken[::-1]
    assert api.get("/v1/jobs", params={"status": "FAILED", "error": "poison"}).json()["data"] == []
    bulk = api.post("/v1/jobs/retry", json={"error": BROKEN.code})
    assert bulk.status_code == 202, bulk.text
    told = bulk.json()
    assert (told["retried"], told["skipped"], told["nextCursor"]) == (3, [], None)
    found = [api.get(f"/v1/jobs/{uuid}").json()["aiRecord"] for uuid in told["jobs"]]
    assert [record["retryOf"] for record in found] == broken
    assert {record["status"] for record in found} == {"QUEUED"}
    rest = api.post("/v1/jobs/retry", json={}).json()
    assert rest["retried"] == 1
    assert api.get(f"/v1/jobs/{rest['jobs'][0]}").json()["aiRecord"]["retryOf"] == lost
    assert api.post("/v1/jobs/retry", json={}).json()["retried"] == 0


def test_page_after_page_and_never_a_retry_of_a_retry(api: TestClient, hand: Hand) -> None:
    old = [failed(api, hand) for _ in range(5)]
    seen, cursor = [], None
    while True:
        told = api.post("/v1/jobs/retry", json={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        for uuid in told["jobs"]:
            seen.append(api.get(f"/v1/jobs/{uuid}").json()["aiRecord"]["retryOf"])
            hand.fail(hand.claim(uuid))
        cursor = told["nextCursor"]
        if cursor is None:
            break
    assert seen == [old[3], old[4], old[1], old[2], old[0]]


def test_tags_and_the_state_narrow_it(api: TestClient, hand: Hand) -> None:
    failed(api, hand)
    tagged = failed(api, hand, body(tags=["sale"]))
    canceled = accept(api)
    api.post(f"/v1/jobs/{canceled}/cancel")

    def retried(**asked: Any) -> list[str]:
        told = api.post("/v1/jobs/retry", json=asked).json()
        return [api.get(f"/v1/jobs/{uuid}").json()["aiRecord"]["retryOf"] for uuid in told["jobs"]]

    assert retried(tag="sale") == [tagged]
    assert retried(campaign="none") == []
    assert retried(status="CANCELED") == [canceled]
    assert retried(limit=1000) != [tagged]


def test_two_at_once_retry_each_job_once(
    api: TestClient, hand: Hand, database: Database, store: ObjectStore, tenant: Tenant
) -> None:
    old = [failed(api, hand, edit(inline())) for _ in range(6)]
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda _: api.post("/v1/jobs/retry", json={}).json(), range(4)))
    made = [uuid for one in told for uuid in one["jobs"]]
    assert len(made) == len(set(made)) == len(old)
    assert rows(database)["jobs"] == 12
    owners = {key.split("/")[2] for key in store.keys(f"t/{tenant.id}/")}
    assert owners == {*old, *made}  # the copies of those that came too late are gone


def test_copying_stops_in_time_and_goes_on_from_there(
    api: TestClient, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [failed(api, hand) for _ in range(3)]
    monkeypatch.setattr("api.retry.COPYING", 0.0)
    first = api.post("/v1/jobs/retry", json={}).json()
    assert first["retried"] == 1
    second = api.post("/v1/jobs/retry", json={"cursor": first["nextCursor"]}).json()
    found = [api.get(f"/v1/jobs/{told['jobs'][0]}").json()["aiRecord"]["retryOf"] for told in (first, second)]
    assert found == [old[2], old[1]]


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"status": "SUCCESS"}, "status"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"limit": "7"}, "limit"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"tags": "a"}, "tags"),
    ],
)
def test_bad_bulk_retries(api: TestClient, asked: dict[str, Any], param: str) -> None:
    refused = api.post("/v1/jobs/retry", json=asked)
    assert (refused.status_code, refused.json()["param"]) == (400, param)
