"""Campaigns through the API: planned without a trace, made once, steered, delivered."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

from redis import Redis
from sqlalchemy import select
from starlette.testclient import TestClient

from api.campaign_references import Pictures
from api.campaigns import content_digest
from api.main import create_app
from fluxfarm.campaigns.spec import Spec
from fluxfarm.settings import Settings
from storage.campaign_records import Campaign
from storage.database import Database
from storage.previews import Preview, Previews
from storage.records import Job
from tests.api.campaigns_made import files, make, render, spec
from tests.api.samples import Hand, rows
from tests.money import assert_balanced


def test_a_plan_counts_and_leaves_nothing(api: TestClient, database: Database) -> None:
    asked = spec(variants=2, rows=[*spec()["rows"], {"sku": "D4", "product": "Salt"}])
    plan = api.post("/v1/campaigns?dryRun=true", json=asked).json()["plan"]
    assert plan["arithmetic"] == "4 rows x 2 placements x 2 variants = 16"
    assert (plan["files"], plan["renders"], plan["duplicates"]) == (16, 12, 4)
    assert plan["prompts"] == [f"{name} on a stone table" for name in ("Olive oil", "Honey", "Salt")]
    assert plan["sizes"] == {"64x64": "64x64", "wide": "128x64"}
    assert plan["names"][0] == "a1-64x64-v1.png"
    assert any("'d4-64x64-v1.png' (row 4), which is 'c3-64x64-v1.png' (row 3)" in one for one in plan["warnings"])
    assert plan["eta"] is None
    assert plan["exists"] is False
    assert set(rows(database).values()) == {0}
    assert api.get("/v1/campaigns").json()["data"] == []


def test_the_same_campaign_is_made_once_and_another_of_its_name_is_refused(api: TestClient) -> None:
    first = api.post("/v1/campaigns", json=spec())
    assert first.status_code == 201
    assert first.headers["location"].endswith("/v1/campaigns/spring")
    again = api.post("/v1/campaigns", json=spec(budget="5"))  # the budget may change, and is not part of it
    assert again.status_code == 200
    assert again.json()["campaign"]["id"] == first.json()["campaign"]["id"]
    written = spec(lane="bulk", fallback=None, tags=[], variants=1, review=False, rows={"inline": spec()["rows"]})
    assert api.post("/v1/campaigns", json=written).status_code == 200
    assert api.post("/v1/campaigns?dryRun=true", json=spec()).json()["plan"]["exists"] is True
    other = api.post("/v1/campaigns", json=spec(prompt="{product} on ice"))
    assert (other.status_code, other.json()["code"]) == (409, "campaign_exists")
    assert len(files(api)) == 6


def test_a_field_of_a_later_version_changes_no_stored_digest() -> None:
    class Later(Spec):
        mood: str | None = None

    now, later = Spec.model_validate(spec()), Later.model_validate(spec())
    assert content_digest(later, Pictures()) == content_digest(now, Pictures())
    assert content_digest(Later.model_validate(spec(mood="calm")), Pictures()) != content_digest(now, Pictures())


def test_jobs_stand_in_an_order_that_shares_shapes_and_prompts(api: TestClient) -> None:
    make(api, variants=2)
    data = api.get("/v1/jobs", params={"campaign": "spring", "limit": 50}).json()["data"]
    asked = [one["aiRecordDetail"]["promptObject"] for one in reversed(data)]
    order = [(one["size"], one["prompt"]) for one in asked]
    assert [size for size, _ in order] == ["64x64"] * 6 + ["128x64"] * 6
    assert len([1 for one, two in pairwise(order) if one != two]) == 5
    assert {one["lane"] for one in data} == {"bulk"}
    assert {one["seed"] for one in asked} == set(
        api.post("/v1/campaigns?dryRun=1", json=spec(variants=2)).json()["plan"]["seeds"]
    )


def test_counts_come_from_the_jobs_and_only_the_failed_are_retried(api: TestClient, hand: Hand) -> None:
    made = make(api)
    assert (made["state"], made["files"]["queued"]) == ("running", 6)
    render(api, hand, but={"b2-wide.png"})
    record = api.get("/v1/campaigns/spring").json()["campaign"]
    assert record["state"] == "done"
    assert record["files"] == {
        "total": 6, "queued": 0, "running": 0, "success": 5, "failed": 1, "canceled": 0, "erased": 0,
    }  # fmt: skip
    assert record["imagesPerMinute"] == 5
    (failed,) = files(api, status="FAILED")
    assert (failed["name"], failed["error"]["code"]) == ("b2-wide.png", "render_failed")
    assert api.post("/v1/campaigns/spring/retry").json() == {"retried": 1, "skipped": 0}
    assert api.post("/v1/campaigns/spring/retry").json() == {"retried": 0, "skipped": 0}
    (again,) = files(api, status="QUEUED")
    assert (again["name"], again["seed"]) == (failed["name"], failed["seed"])
    assert again["job"] != failed["job"]
    render(api, hand)
    record = api.get("/v1/campaigns/spring").json()["campaign"]
    assert (record["state"], record["files"]["success"]) == ("done", 6)


def test_a_retry_of_one_job_moves_its_file_too(api: TestClient, hand: Hand) -> None:
    make(api)
    render(api, hand, but={"b2-wide.png"})
    (failed,) = files(api, status="FAILED")
    new = api.post(f"/v1/jobs/{failed['job']}/retry").json()["aiRecord"]["uuid"]
    assert [one["job"] for one in files(api, status="QUEUED")] == [new]


def test_pause_resume_and_cancel(api: TestClient, hand: Hand) -> None:
    make(api)
    running = hand.claim(files(api)[0]["job"])
    assert api.post("/v1/campaigns/spring/pause").json()["campaign"]["state"] == "paused"
    hand.finish(running)
    assert api.post("/v1/campaigns/spring/resume").json()["campaign"]["state"] == "running"
    second = hand.claim(files(api)[1]["job"])
    ended = api.post("/v1/campaigns/spring/cancel").json()["campaign"]
    assert (ended["state"], ended["files"]["canceled"], ended["files"]["running"]) == ("cancelled", 4, 1)
    hand.finish(second)  # jobs in flight finish
    assert api.get("/v1/campaigns/spring").json()["campaign"]["files"]["success"] == 2
    for call in ("pause", "resume", "retry"):
        assert api.post(f"/v1/campaigns/spring/{call}").status_code == 409
    assert api.post("/v1/campaigns/spring/cancel").status_code == 200


def test_a_webhook_may_be_named_by_its_id(api: TestClient, database: Database) -> None:
    made = api.post("/v1/webhooks", json={"url": "https://shop.example.com/hook"}).json()["id"]
    assert api.post("/v1/campaigns", json=spec(webhook=made)).status_code == 201
    with database.transaction() as session:
        assert session.scalars(select(Campaign.webhook_id)).all() == [made]
        assert set(session.scalars(select(Job.webhook_id))) == {made}


def test_a_campaign_may_wait_for_its_start(api: TestClient) -> None:
    reply = api.post("/v1/campaigns?start=false", json=spec())
    assert reply.json()["campaign"]["state"] == "draft"
    assert api.post("/v1/campaigns/spring/resume").json()["campaign"]["state"] == "running"


def test_the_archive_has_every_file_once_under_its_name(api: TestClient, hand: Hand) -> None:
    make(
        api,
        prompt="=HYPERLINK {product}",
        naming="{sku}/{placement}",
        rows=[*spec()["rows"], {"sku": "D4", "product": "Salt"}],
    )
    render(api, hand, but={"B2/wide.png"})
    reply = api.get("/v1/campaigns/spring/export.zip")
    assert reply.headers["content-type"] == "application/zip"
    assert int(reply.headers["content-length"]) == len(reply.content)
    assert 'filename="spring.zip"' in reply.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(reply.content)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        table = list(csv.DictReader(io.StringIO(archive.read("manifest.csv").decode("utf-8-sig"), newline="")))
        tree = json.loads(archive.read("manifest.json"))["files"]
        sums = {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names}
    pictures = [f"{sku}/{place}.png" for sku in ("A1", "B2", "C3", "D4") for place in ("64x64", "wide")]
    pictures.remove("B2/wide.png")
    assert names == [*pictures, "manifest.csv", "manifest.json"]
    assert sums["C3/wide.png"] == sums["D4/wide.png"] != sums["C3/64x64.png"]
    assert [line["file"] for line in table] == [line["file"] for line in tree] == pictures
    assert {line["prompt"][:2] for line in table} == {"'="}
    assert {line["prompt"][:1] for line in tree} == {"="}
    assert tree[0]["url"].endswith(f"/v1/assets/{tree[0]['uuid']}/0")
    assert api.get("/v1/campaigns/spring/manifest.json").json()["files"] == tree
    assert len(api.get("/v1/campaigns/spring/manifest.csv").text.splitlines()) == 8


def test_another_tenant_sees_nothing_of_it(api: TestClient, other_key: str) -> None:
    record = make(api)
    theirs: dict[str, Any] = {"headers": {"Authorization": f"Bearer {other_key}"}}
    for name in ("spring", record["id"]):
        for call in ("", "/assets", "/export.zip", "/manifest.csv"):
            assert api.get(f"/v1/campaigns/{name}{call}", **theirs).status_code == 404
        for call in ("pause", "resume", "cancel", "retry"):
            assert api.post(f"/v1/campaigns/{name}/{call}", **theirs).status_code == 404
    assert api.get("/v1/campaigns", **theirs).json()["data"] == []
    assert api.post("/v1/campaigns", json=spec(), **theirs).status_code == 201  # names are each tenant's own


def test_pages_of_campaigns(api: TestClient) -> None:
    for name in ("one", "two", "three"):
        make(api, name=name)
    first = api.get("/v1/campaigns", params={"limit": 2}).json()
    rest = api.get("/v1/campaigns", params={"limit": 2, "cursor": first["nextCursor"]}).json()
    assert [one["name"] for one in first["data"] + rest["data"]] == ["three", "two", "one"]
    assert rest["nextCursor"] is None
    assert api.get("/v1/campaigns", params={"cursor": "x"}).status_code == 400


def test_previews_of_an_erased_campaign_are_gone_with_it(api: TestClient, settings: Settings) -> None:
    make(api)
    jobs = [UUID(one["job"]) for one in files(api)]
    seen = Preview(attempt=1, n=0, index=0, step=1, steps=2, content_type="image/png", body=b"seen")
    previews = Previews(settings.redis_url)
    for uuid in (*jobs, other := uuid4()):
        previews.put(uuid, seen)
    assert api.delete("/v1/campaigns/spring").status_code == 204
    with Redis.from_url(settings.redis_url.get_secret_value()) as valkey:
        assert valkey.keys("preview:*") == [f"preview:{other}".encode()]
    previews.close()


def test_a_budget_that_is_too_small_makes_nothing(settings: Settings, api_key: str, database: Database) -> None:
    priced = settings.model_copy(update={"gpu_second_price": Decimal(1)})
    with TestClient(create_app(priced), headers={"Authorization": f"Bearer {api_key}"}) as api:
        (route,) = api.post("/v1/campaigns?dryRun=true", json=spec()).json()["plan"]["routes"]
        assert (route["provider"], Decimal(route["usd"]) > 0) == ("local", True)
        reply = api.post("/v1/campaigns", json=spec(budget="0.000001"))
        assert (reply.status_code, reply.json()["code"]) == (402, "budget_exceeded")
        assert set(rows(database).values()) == {0}
        assert api.get("/v1/campaigns").json()["data"] == []
        enough = make(api, budget=route["usd"])
        assert Decimal(enough["reserved"]) == Decimal(enough["budget"]) == Decimal(route["usd"])
        changed = api.patch("/v1/campaigns/spring", json={"budget": "100"}).json()["campaign"]
        assert Decimal(changed["budget"]) == 100
        assert api.patch("/v1/campaigns/spring", json={"budget": 0}).status_code == 400
        ended = api.post("/v1/campaigns/spring/cancel").json()["campaign"]
        assert Decimal(ended["reserved"]) == Decimal(ended["spent"]) == 0
    assert_balanced(database)
