"""What is kept no longer, by the clock and by a caller's word; a word of the prompt is looked for everywhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from fluxfarm.settings import Settings
from storage.database import Database
from storage.objects import ObjectStore
from storage.records import Tenant
from storage.repository import retention as kept
from tests.api.campaigns_made import files, make, render
from tests.api.canary import CANARY, QUOTED, age, keep, objects, places, post, record, upload
from tests.api.samples import Hand
from tests.making import MODEL
from workers.cleaning import Cleaner
from workers.retention import Retention


def test_prompts_go_after_their_days_and_the_rest_stays(
    api: TestClient, database: Database, settings: Settings, hand: Hand, retention: Retention
) -> None:
    done, failed, waiting = post(api), post(api), post(api)
    hand.finish(hand.claim(done))
    hand.fail(hand.claim(failed), QUOTED)
    assert set(places(database, settings)) >= {"jobs", "attempts", "events"}
    retention.erase_now()
    assert record(api, done)["erased"] == [], "the farm keeps prompts for thirty days"
    age(database, 31)
    retention.erase_now()
    told = record(api, done)
    assert (told["erased"], told["aiRecordDetail"]["promptObject"]) == (["prompt"], {})
    assert (told["status"], len(told["temporaryUrls"]), len(told["attempts"][0]["seeds"])) == ("SUCCESS", 1, 1)
    assert record(api, failed)["error"]["code"] == "moderated"
    assert CANARY in record(api, waiting)["aiRecordDetail"]["promptObject"]["prompt"], "a job that is not over"
    assert api.post(f"/v1/jobs/{waiting}/cancel").status_code == 200
    age(database, 31)
    retention.erase_now()
    assert places(database, settings) == []


def test_a_job_without_its_prompt_is_not_tried_again(
    api: TestClient, database: Database, hand: Hand, retention: Retention
) -> None:
    uuid = post(api)
    hand.fail(hand.claim(uuid))
    age(database, 31)
    retention.erase_now()
    refused = api.post(f"/v1/jobs/{uuid}/retry")
    assert (refused.status_code, refused.json()["code"]) == (410, "gone")
    many = api.post("/v1/jobs/retry", json={}).json()
    assert (many["jobs"], many["skipped"]) == ([], [{"job": uuid, "code": "gone"}])


def test_a_backlog_is_erased_in_short_rounds_with_each_kind_in_turn(
    api: TestClient, database: Database, hand: Hand, retention: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.retention.WORK", 0.0)
    monkeypatch.setattr("workers.retention.BATCH", 1)
    keep(database, prompt_days=1, result_days=1)
    made = [post(api) for _ in range(3)]
    for uuid in made:
        hand.finish(hand.claim(uuid))
    age(database, 2)
    for done in (1, 2, 3, 3):
        retention.erase_due()
        assert [record(api, uuid)["erased"] for uuid in made] == [["prompt", "results"]] * done + [[]] * (3 - done)
    last = post(api)
    hand.finish(hand.claim(last))
    age(database, 2)
    retention.erase_due()
    assert record(api, last)["erased"] == [], "with nothing left it waits for a minute"


@pytest.mark.parametrize("days", [0, 40])
def test_a_tenant_may_keep_its_prompts_longer(
    api: TestClient, database: Database, hand: Hand, retention: Retention, tenant: Tenant, days: int
) -> None:
    changed = api.patch(f"/v1/tenants/{tenant.id}", json={"retention": {"promptDays": days}})
    assert changed.json()["retention"]["promptDays"] == days
    uuid = post(api)
    hand.finish(hand.claim(uuid))
    age(database, 31)
    retention.erase_now()
    assert record(api, uuid)["erased"] == []


def test_pictures_go_after_their_days(
    api: TestClient, database: Database, hand: Hand, store: ObjectStore, retention: Retention, cleaner: Cleaner
) -> None:
    keep(database, result_days=7, prompt_days=0)
    old, new = post(api), post(api)
    hand.finish(hand.claim(old))
    age(database, 8)
    hand.finish(hand.claim(new))
    link = record(api, old)["temporaryUrl"]
    retention.erase_now()
    cleaner.leftovers()
    told = record(api, old)
    assert (told["status"], told["erased"], told["temporaryUrls"]) == ("SUCCESS", ["results"], [])
    assert told["aiRecordDetail"]["resultObject"] == []
    assert api.get(link).status_code == 404
    gone = api.get(f"/v1/assets/{old}/0")
    assert (gone.status_code, gone.json()["code"]) == (410, "gone")
    assert api.get(f"/v1/assets/{new}/0").status_code == 302
    assert objects(store) == 1


def test_erased_pictures_are_no_success_without_pictures(
    api: TestClient, database: Database, hand: Hand, retention: Retention
) -> None:
    keep(database, result_days=1)
    line: dict[str, Any] = {"custom_id": "1", "method": "POST", "url": "/v1/images/generations"}
    line |= {"body": {"model": MODEL, "prompt": "a fox", "size": "64x64"}}
    sent = api.post("/v1/files", files={"file": ("a.jsonl", json.dumps(line))}, data={"purpose": "batch"}).json()["id"]
    asked = {"input_file_id": sent, "endpoint": line["url"], "completion_window": "24h"}
    batch = api.post("/v1/batches", json=asked).json()
    uuid = api.get("/v1/jobs").json()["data"][0]["uuid"]
    hand.finish(hand.claim(uuid))
    done = api.get(f"/v1/batches/{batch['id']}").json()
    assert api.get(f"/replicate/v1/predictions/{uuid}").json()["data_removed"] is False
    age(database, 2)
    retention.erase_now()
    told = json.loads(api.get(f"/v1/files/{done['output_file_id']}/content").text)
    assert (told["response"]["status_code"], told["response"]["body"]["error"]["code"]) == (410, "gone")
    prediction = api.get(f"/replicate/v1/predictions/{uuid}").json()
    assert (prediction["data_removed"], prediction["output"]) == (True, None)


def test_a_campaign_keeps_its_pictures_and_texts_until_its_prompts_go(
    api: TestClient,
    database: Database,
    settings: Settings,
    store: ObjectStore,
    hand: Hand,
    retention: Retention,
    cleaner: Cleaner,
) -> None:
    made = {"prompt": f"{{product}}, {CANARY}", "references": [upload(api)], "defaults": {"x": CANARY}}
    make(api, **made)
    age(database, 40)
    retention.erase_now()
    cleaner.leftovers()
    assert objects(store) == 1, "its jobs have not begun"
    render(api, hand)
    age(database, 29)
    retention.erase_now()
    pictures = objects(store)
    name = files(api)[0]["name"]
    again = {"files": [name], "verdict": "regenerate"}
    assert api.post("/v1/campaigns/spring/reviews", json=again).status_code == 200
    render(api, hand)
    age(database, 31)
    retention.erase_now()
    cleaner.leftovers()
    assert places(database, settings) == []
    assert objects(store) == pictures, "one new picture, and the reference is gone"
    shown = api.get("/v1/campaigns/spring").json()["campaign"]
    assert shown["files"]["success"] == 6
    refused = api.post("/v1/campaigns/spring/reviews", json=again)
    assert (refused.status_code, refused.json()["code"]) == (410, "gone")
    for name in [one["name"] for one in files(api)]:
        drawn_from = again | {"files": [name], "prompt": "another"}
        refused = api.post("/v1/campaigns/spring/reviews", json=drawn_from)
        assert (refused.status_code, refused.json()["code"]) == (410, "gone"), "its reference is not there"


def test_a_file_without_references_is_rendered_anew_by_another_prompt(
    api: TestClient, database: Database, hand: Hand, retention: Retention
) -> None:
    make(api)
    render(api, hand)
    age(database, 31)
    retention.erase_now()
    again = {"files": [files(api)[0]["name"]], "verdict": "regenerate"}
    assert api.post("/v1/campaigns/spring/reviews", json=again).status_code == 410
    assert api.post("/v1/campaigns/spring/reviews", json=again | {"prompt": "another"}).status_code == 200


def test_records_go_after_their_days_and_the_amounts_stay(
    api: TestClient,
    database: Database,
    settings: Settings,
    store: ObjectStore,
    hand: Hand,
    retention: Retention,
    cleaner: Cleaner,
) -> None:
    keep(database, record_days=90, prompt_days=0)
    make(api, prompt=f"{{product}}, {CANARY}")
    render(api, hand)
    waiting = post(api)
    age(database, 91)
    for _ in range(2):
        retention.erase_now()
    cleaner.of_jobs()
    assert [one["uuid"] for one in api.get("/v1/jobs").json()["data"]] == [waiting]
    assert api.get("/v1/campaigns/spring").status_code == 404
    assert objects(store) == 0
    assert places(database, settings) == ["jobs"]


def test_batches_keep_their_files_as_long_as_prompts(
    api: TestClient, database: Database, settings: Settings, retention: Retention
) -> None:
    line = (
        f'{{"custom_id": "1", "method": "POST", "url": "/v1/images/generations", "body": {{"prompt": "{CANARY}"}}}}\n'
    )
    sent = api.post("/v1/files", files={"file": ("calls.jsonl", line)}, data={"purpose": "batch"})
    assert sent.status_code == 200, sent.text
    assert places(database, settings) == ["batch_files"]
    age(database, 31)
    retention.erase_now()
    assert places(database, settings) == []


def test_delete_erases_a_job_everywhere(
    api: TestClient, database: Database, settings: Settings, store: ObjectStore, hand: Hand
) -> None:
    uuid = post(api, tags=[CANARY], externalId=CANARY)
    hand.finish(hand.claim(uuid))
    assert places(database, settings) == ["jobs"], "a prompt stands in one place only"
    assert api.delete(f"/v1/jobs/{uuid}").status_code == 204
    assert (places(database, settings), objects(store)) == ([], 0)


def test_delete_erases_a_campaign_with_all_its_jobs(
    api: TestClient, database: Database, settings: Settings, store: ObjectStore, hand: Hand, cleaner: Cleaner
) -> None:
    make(api, prompt=f"{{product}}, {CANARY}", tags=[CANARY])
    render(api, hand)
    comment = {"files": [files(api)[0]["name"]], "verdict": "comment", "comment": CANARY}
    assert api.post("/v1/campaigns/spring/reviews", json=comment).status_code == 200
    other = post(api)
    assert api.delete("/v1/campaigns/spring").status_code == 204
    assert api.delete("/v1/campaigns/spring").status_code == 404
    cleaner.of_jobs()
    assert objects(store) == 0
    assert [one["uuid"] for one in api.get("/v1/jobs").json()["data"]] == [other]
    assert api.delete(f"/v1/jobs/{other}").status_code == 204
    assert places(database, settings) == []


def test_rounds_are_bounded_and_go_on_where_they_stopped(
    api: TestClient, database: Database, retention: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.retention.BATCH", 2)
    jobs = [post(api) for _ in range(5)]
    with database.engine.begin() as connection:  # all at one moment, as when a campaign is canceled
        connection.execute(text("UPDATE jobs SET status = 'CANCELED', finished_at = now() - interval '31 days'"))
    erased = []
    for _ in range(4):
        retention.erase_now(0.0)
        erased.append(sum(record(api, uuid)["erased"] == ["prompt"] for uuid in jobs))
    assert erased == [2, 4, 5, 5]


def test_two_schedulers_do_the_work_once(database: Database, tenant: Tenant) -> None:
    with database.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO jobs (uuid, tenant_id, type, model, status, lane, queue, provider, request, prompt_object,"
                " gpu_seconds, tags, steps, finished_at) SELECT gen_random_uuid(), :tenant, 'IMAGE_GENERATOR', 'm',"
                " 'SUCCESS', 0, 'q', 'auto', '{}', '{}', 0, '{}', 1, now() - interval '31 days'"
                " FROM generate_series(1, 3)"
            ),
            {"tenant": tenant.id},
        )
    with database.transaction() as session:
        assert kept.erase(session, "prompt", tenant.id, 0, limit=2) == 0, "0: for ever"
    with database.transaction() as first:
        assert kept.erase(first, "prompt", tenant.id, 30, limit=2) == 2
        with database.transaction() as second:
            assert kept.erase(second, "prompt", tenant.id, 30, limit=2) == 0
    with database.transaction() as session:
        assert kept.due(session, "prompt", 30, limit=9) == [tenant.id]
        assert kept.erase(session, "prompt", tenant.id, 30, limit=2) == 1
        assert kept.due(session, "prompt", 30, limit=9) == []


@pytest.mark.parametrize(
    "kept", [{"promptDays": -1}, {"promptDays": 36_501}, {"referenceHours": 10**9}, {"recordDays": "7"}]
)
def test_times_that_no_tenant_can_have(api: TestClient, tenant: Tenant, kept: dict[str, Any]) -> None:
    reply = api.patch(f"/v1/tenants/{tenant.id}", json={"retention": kept})
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_field")
