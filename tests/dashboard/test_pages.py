"""Every page with something on it: its headers, its texts as texts, and what happens when a thing is gone."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from PIL import Image as Pillow
from starlette.testclient import TestClient

from storage.database import Database
from storage.objects import ObjectStore
from storage.records import Tenant, Worker
from storage.repository import tenants, workers
from storage.thumbnails import SIDE, shrink, thumbnail_key
from tests.api.samples import Hand, body, picture
from tests.dashboard.conftest import OURS, log_in


def somebody_else(app: FastAPI) -> TestClient:
    """Another browser on the same farm, which runs already."""
    return TestClient(app, headers=OURS, follow_redirects=False)


NASTY = """<script>alert(1)</script>'"><img src=x onerror=alert(1)>{{ 7*7 }}"""
PAGES = (
    *("/", "/jobs", "/playground", "/gallery", "/campaigns", "/new-campaign", "/providers", "/providers?window=30d"),
    *("/models", "/models/compare", "/models/compare?model=flux-2-dev&model=flux-2-pro", "/usage", "/design"),
)


def post(browser: TestClient, prompt: str = "a fox", **changes: object) -> str:
    made = browser.post("/dashboard/v1/jobs", json=body({"prompt": prompt}, **changes))
    assert made.status_code == 202, made.text
    return str(made.json()["aiRecord"]["uuid"])


def test_pages_load_nothing_from_elsewhere_and_run_no_script_of_their_own(browser: TestClient) -> None:
    for path in (*PAGES, "/login", "/nothing", "/jobs/nonsense"):
        check_page(browser.get(f"/dashboard{path}"))


def check_page(page: Any) -> None:
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert not re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", page.text)
    for address in re.findall(r'(?:src|href|action)="([^"]*)"', page.text):
        assert address.startswith(("/dashboard", "#", "http://127.0.0.1:5555")), address


def test_a_prompt_is_a_text_everywhere(browser: TestClient, hand: Hand) -> None:
    uuid = post(browser, NASTY, tags=["<b>tag</b>", "playground"])
    hand.finish(hand.claim(uuid))
    for path in (
        "/jobs",
        f"/jobs/{uuid}",
        "/playground",
        f"/playground?like={uuid}",
        "/gallery",
        f"/jobs?q={NASTY[:20]}",
    ):
        page = browser.get(f"/dashboard{path}")
        assert page.status_code == 200, path
        assert "<script>alert" not in page.text
        assert "<img src=x" not in page.text
        assert "<b>tag" not in page.text
        assert "{{ 7*7 }}" in page.text or path.startswith("/jobs?q")


def worker(**changes: Any) -> Worker:
    now = datetime.now(UTC)
    said = {
        "id": uuid4(), "name": "box", "pid": 1, "provider": "local", "queues": [], "models": [], "device": "cuda",
        "slots": 2, "state": "ready", "started_at": now, "heartbeat_at": now,
    }  # fmt: skip
    return Worker(**(said | changes))


def test_the_overview_tells_what_the_devices_do(browser: TestClient, database: Database) -> None:
    gpu = {"memory_used": 61 * 2**30, "memory_total": 80 * 2**30}
    with database.transaction() as session:
        for one in (
            worker(name="large", **gpu, utilisation=0.97),
            worker(name="quiet", **gpu),
            worker(name="small", device="cpu", memory_used=700 * 2**20),
            worker(name="old"),
        ):
            workers.register(session, one)
    page = browser.get("/dashboard/")
    check_page(page)
    told = {
        name: " ".join(re.sub("<[^>]*>", " ", found).split())
        for name, found in re.findall(r'<strong class="ellipsis">(\w+)</strong>(.*?)</li>', page.text, re.DOTALL)
    }
    assert "61.0 GB of 80.0 GB GPU memory, GPU 97 % busy" in told["large"]
    assert "61.0 GB of 80.0 GB GPU memory idle" in told["quiet"]
    assert "700 MB of memory in its process; no GPU" in told["small"]
    assert "memory" not in told["old"]
    (listed, *_) = browser.get("/dashboard/v1/workers").json()["data"]
    assert (listed["memoryUsed"], listed["memoryTotal"], listed["utilisation"]) == (61 * 2**30, 80 * 2**30, 0.97)


def test_the_overview_counts_what_waits_and_hides_it_from_others(
    browser: TestClient, app: FastAPI, database: Database
) -> None:
    post(browser)
    with database.transaction() as session:
        rival = tenants.ensure_tenant(session, "rival")
        _, theirs = tenants.create_key(session, rival.id, "theirs", ["read"])
    assert "acme" in browser.get("/dashboard/").text
    other = somebody_else(app)
    log_in(other, theirs)
    page = other.get("/dashboard/").text
    assert "The queue is empty" in page
    assert "acme" not in page


def test_jobs_are_found_by_words_state_and_id(browser: TestClient) -> None:
    uuid = post(browser, "a red fox, 100% wool")
    post(browser, "a blue heron")
    assert browser.get(f"/dashboard/jobs?q={uuid}").headers["location"] == f"/dashboard/jobs/{uuid}"
    for query, seen, unseen in (
        ("q=RED+FOX", "red fox", "heron"),
        ("q=100%25", "red fox", "heron"),
        ("q=%25", "red fox", "heron"),
        ("status=QUEUED&q=heron", "heron", "red fox"),
        ("status=FAILED", "No such job", "heron"),
        ("status=NONSENSE&tag=&campaign=", "heron", "No such job"),
    ):
        page = browser.get(f"/dashboard/jobs?{query}").text
        assert seen in page, query
        assert unseen not in page, query


def test_a_job_s_page_tells_its_end_and_what_can_be_done(browser: TestClient, hand: Hand) -> None:
    uuid = post(browser)
    assert f'action="/dashboard/jobs/{uuid}/cancel"' in browser.get(f"/dashboard/jobs/{uuid}").text
    stopped = browser.post(f"/dashboard/jobs/{uuid}/cancel")
    assert (stopped.status_code, stopped.headers["location"]) == (303, f"/dashboard/jobs/{uuid}")
    page = browser.get(f"/dashboard/jobs/{uuid}").text
    assert "The caller canceled the job." in page
    assert "Try again" in page
    again = browser.post(f"/dashboard/jobs/{uuid}/retry").headers["location"]
    assert "another job" in browser.get(again).text
    second = browser.post(f"/dashboard/jobs/{uuid}/cancel")
    assert second.status_code == 409
    assert "is already CANCELED" in second.text
    new = again.rpartition("/")[2]
    hand.finish(hand.claim(new))
    page = browser.get(again).text
    assert f"/dashboard/pictures/{new}/0" in page
    assert "Where the time went" in page
    assert browser.post(f"/dashboard/jobs/{new}/erase").headers["location"] == "/dashboard/jobs"
    gone = browser.get(again)
    assert gone.status_code == 404
    assert "It may have been erased" in gone.text


def test_a_key_that_may_only_read_sees_no_buttons_and_may_press_none(
    browser: TestClient, visitor: TestClient, database: Database, tenant: Tenant
) -> None:
    uuid = post(browser)
    with database.transaction() as session:
        _, key = tenants.create_key(session, tenant.id, "reader", ["read"])
    log_in(visitor, key)
    assert f'action="/dashboard/jobs/{uuid}/cancel"' not in visitor.get(f"/dashboard/jobs/{uuid}").text
    refused = visitor.post(f"/dashboard/jobs/{uuid}/cancel")
    assert refused.status_code == 403
    assert "lacks the scope &#39;render&#39;" in refused.text


def test_things_of_another_tenant_do_not_exist(
    browser: TestClient, app: FastAPI, database: Database, hand: Hand
) -> None:
    uuid = post(browser)
    hand.finish(hand.claim(uuid))
    with database.transaction() as session:
        rival = tenants.ensure_tenant(session, "rival")
        _, theirs = tenants.create_key(session, rival.id, "theirs", ["read", "render"])
    other = somebody_else(app)
    log_in(other, theirs)
    for path in ("jobs/{}", "pictures/{}/0", "thumbnails/{}/0", "jobs/{}/provenance/0", "playground?like={}"):
        assert other.get(f"/dashboard/{path.format(uuid)}").status_code == 404, path


def test_small_pictures_are_made_once_and_kept_beside_the_picture(
    browser: TestClient, hand: Hand, store: ObjectStore
) -> None:
    uuid = post(browser)
    (key,) = hand.finish(hand.claim(uuid), (picture(1200, 600),))
    first = browser.get(f"/dashboard/thumbnails/{uuid}/0")
    assert (first.status_code, first.headers["content-type"]) == (200, "image/webp")
    assert "max-age" in first.headers["cache-control"]
    assert store.get(thumbnail_key(key)) == first.content
    assert len(first.content) < 4_000
    assert browser.get(f"/dashboard/thumbnails/{uuid}/0").content == first.content
    assert browser.get(f"/dashboard/thumbnails/{uuid}/1").status_code == 404
    browser.post(f"/dashboard/jobs/{uuid}/erase")
    assert store.stat(thumbnail_key(key)) is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "GIF"])
def test_every_format_of_the_farm_gets_a_small_picture(kind: str) -> None:
    with Pillow.open(io.BytesIO(shrink(picture(800, 500, kind)))) as small:
        assert (small.format, small.size) == ("WEBP", (SIDE, SIDE * 5 // 8))


def test_a_picture_opens_under_the_name_that_the_visitor_knows(browser: TestClient, hand: Hand) -> None:
    uuid = post(browser)
    hand.finish(hand.claim(uuid))
    link = browser.get(f"/dashboard/pictures/{uuid}/0").headers["location"]
    assert link.startswith("/objects/")
    assert browser.get(link).content == picture()
    saved = browser.get(browser.get(f"/dashboard/pictures/{uuid}/0?download=1").headers["location"])
    assert saved.headers["content-disposition"].startswith("attachment")


def test_the_wall_tells_sizes_in_pages(browser: TestClient, hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.dashboard.gallery.MORE", 2)
    made = [post(browser, f"fox {n}", tags=["wall"]) for n in range(3)]
    post(browser, "without a picture")
    for uuid in made:
        hand.finish(hand.claim(uuid))
    first = browser.get("/dashboard/gallery/pictures?tag=wall").json()
    assert [one["id"] for one in first["data"]] == [f"{made[2]}/0", f"{made[1]}/0"]
    assert first["data"][0] | {"id": ""} == {"id": "", "w": 96, "h": 64, "p": "fox 2"}
    last = browser.get(f"/dashboard/gallery/pictures?tag=wall&cursor={first['next']}").json()
    assert last == {"data": [{"id": f"{made[0]}/0", "w": 96, "h": 64, "p": "fox 0"}], "next": None}


def test_the_playground_works_without_a_script(browser: TestClient) -> None:
    form = {"model": "fluxfarm/flux-2-klein-small", "prompt": "a fox", "size": "64x64", "steps": "2", "seed": "7"}
    made = browser.post("/dashboard/playground", data=form)
    assert made.status_code == 303
    uuid = made.headers["location"].rpartition("/")[2]
    record = browser.get(f"/dashboard/v1/jobs/{uuid}").json()["aiRecord"]
    assert record["aiRecordDetail"]["promptObject"] == {
        "prompt": "a fox", "size": "64x64", "num_inference_steps": 2, "seed": 7,
    }  # fmt: skip
    for wrong in ({"steps": "many"}, {"guidance": "x"}, {"size": "0x0"}, {"model": "nonsense"}, {"prompt": ""}):
        refused = browser.post("/dashboard/playground", data=form | wrong)
        assert 400 <= refused.status_code < 500, wrong
        assert "<h1>" in refused.text


def test_a_form_that_is_too_large_is_refused_before_it_is_read(browser: TestClient) -> None:
    refused = browser.post("/dashboard/playground", data={"prompt": "x" * 100_000})
    assert refused.status_code == 413
    assert "Make it smaller" in refused.text
    streamed = browser.post("/dashboard/playground", content=iter([b"prompt=x"]))
    assert streamed.status_code == 400


def test_what_is_not_there_is_a_page_that_says_so(browser: TestClient) -> None:
    paths = ("/nothing", "/jobs/nonsense", f"/jobs/{UUID(int=7)}", "/pictures/1/1", "/jobs?cursor=!")
    no_text = [f"/{page}?{field}=%00" for page in ("jobs", "gallery") for field in ("q", "model", "campaign", "tag")]
    for path in (*paths, *no_text, f"/jobs/{UUID(int=7)}/provenance/{10**12}"):
        page = browser.get(f"/dashboard{path}")
        assert page.status_code in (400, 404), path
        assert page.headers["content-type"].startswith("text/html"), path
        assert "To the overview" in page.text, path
    assert browser.get("/dashboard/campaigns/%00").status_code == 404  # told by the API, before there is a page


def test_the_address_of_the_farm_leads_to_the_dashboard(visitor: TestClient) -> None:
    for path in ("/", "/dashboard"):
        assert visitor.get(path).headers["location"] == "/dashboard/"
    assert "/dashboard" not in json.dumps(visitor.get("/openapi.json").json()["paths"])


def test_static_files_may_be_kept_and_nothing_else_is_served(visitor: TestClient) -> None:
    page = visitor.get("/dashboard/login").text
    (style,) = re.findall(r'href="([^"]+\.css)"', page)
    found = visitor.get(style)
    assert found.headers["content-type"].startswith("text/css")
    assert "immutable" in found.headers["cache-control"]
    for name in ("../pages.py", "..%2fpages.py", "base.html", "nothing.css"):
        assert visitor.get(f"{style.rpartition('/')[0]}/{name}").status_code == 404, name


def test_keys_are_made_shown_once_and_revoked(browser: TestClient, visitor: TestClient, app: FastAPI) -> None:
    made = browser.post("/dashboard/usage/keys", data={"name": "shop <b>", "scopes": ["read"], "days": "7"})
    (secret,) = re.findall(r'value="(ff_live_\w+)"', made.text)
    assert "shop &lt;b&gt;" in made.text
    page = browser.get("/dashboard/usage").text
    assert secret not in page
    other = somebody_else(app)
    log_in(other, secret)
    assert "Keys are shown to those" in other.get("/dashboard/usage").text
    assert other.post("/dashboard/usage/keys", data={"name": "x", "scopes": ["read"]}).status_code == 403
    (revoke, _) = re.findall(r'action="(/dashboard/usage/keys/[^"]+/revoke)"', page)
    assert visitor.post(revoke).status_code == 303
    assert other.get("/dashboard/usage").status_code == 303
    few = {"name": "x", "scopes": ["read"]}
    wrongs: tuple[dict[str, Any], ...] = (
        {"name": ""},
        {"name": "x"},
        {"name": "x", "scopes": "nonsense"},
        *(few | {"days": days} for days in ("0", "soon", "-1", "1.5")),
    )
    for wrong in wrongs:
        assert browser.post("/dashboard/usage/keys", data=wrong).status_code == 400, wrong


def test_the_pages_of_models_know_what_there_is_not(browser: TestClient) -> None:
    assert browser.get("/dashboard/models/compare?model=nonsense").status_code == 404
    assert browser.get("/dashboard/providers?window=1y").status_code == 400
    assert browser.post("/dashboard/providers/reset", data={"provider": "nobody"}).status_code == 404
