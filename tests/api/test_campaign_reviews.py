"""People and pictures: verdicts with their history, new tries, masters, contact sheets, shared links."""

from __future__ import annotations

import io
import re
import zipfile
from datetime import UTC, datetime, timedelta
from typing import Any

from PIL import Image
from sqlalchemy import text
from starlette.testclient import TestClient

from storage.database import Database
from tests.api.campaigns_made import files, make, render
from tests.api.samples import Hand


def said(api: TestClient, verdict: str, *names: str, **more: Any) -> Any:
    return api.post("/v1/campaigns/spring/reviews", json={"files": list(names), "verdict": verdict, **more})


def archived(api: TestClient, path: str) -> list[str]:
    reply = api.get(path)
    assert reply.status_code == 200, reply.text
    with zipfile.ZipFile(io.BytesIO(reply.content)) as archive:
        assert archive.testzip() is None
        return [name for name in archive.namelist() if not name.startswith("manifest")]


def test_the_export_takes_what_is_approved_and_the_history_stays(api: TestClient, hand: Hand) -> None:
    make(api, review=True)
    assert said(api, "approve", "a1-wide.png").status_code == 409  # nothing to look at yet
    render(api, hand)
    assert archived(api, "/v1/campaigns/spring/export.zip") == []
    assert said(api, "reject", "a1-wide.png", "b2-wide.png", comment="too dark", author="Ada").json() == {"reviewed": 2}
    said(api, "approve", "a1-wide.png", "c3-64x64.png")
    said(api, "comment", "a1-wide.png", comment="good now")
    assert archived(api, "/v1/campaigns/spring/export.zip") == ["a1-wide.png", "c3-64x64.png"]
    assert len(archived(api, "/v1/campaigns/spring/export.zip?only=done")) == 6
    assert [one["name"] for one in files(api, verdict="reject")] == ["b2-wide.png"]
    assert len(files(api, verdict="none")) == 3
    history = api.get("/v1/campaigns/spring/reviews", params={"file": "a1-wide.png"}).json()["data"]
    assert [(one["verdict"], one["comment"]) for one in history] == [
        ("reject", "too dark"),
        ("approve", ""),
        ("comment", "good now"),
    ]
    assert history[0]["author"] == "Ada"
    assert said(api, "approve", "nothing.png", "a1-wide.png").status_code == 404
    assert said(api, "approve", "a1-wide.png", seed=3).status_code == 400
    assert len(api.get("/v1/campaigns/spring/reviews").json()["data"]) == 5


def test_a_new_try_has_another_prompt_or_seed_and_no_verdict(api: TestClient, hand: Hand) -> None:
    make(api)
    render(api, hand)
    before = {one["name"]: one for one in files(api)}
    said(api, "approve", "a1-wide.png")
    assert said(api, "regenerate", "a1-wide.png", prompt="olive oil, brighter").status_code == 200
    assert said(api, "regenerate", "b2-wide.png", seed=99).status_code == 200
    assert said(api, "regenerate", "c3-wide.png").status_code == 200
    assert said(api, "regenerate", "c3-wide.png").status_code == 409  # it is on its way
    now = {one["name"]: one for one in files(api)}
    brighter, seeded, other = (now[f"{key}-wide.png"] for key in ("a1", "b2", "c3"))
    assert (brighter["prompt"], brighter["seed"]) == ("olive oil, brighter", before["a1-wide.png"]["seed"])
    assert (seeded["seed"], seeded["prompt"]) == (99, before["b2-wide.png"]["prompt"])
    assert other["seed"] != before["c3-wide.png"]["seed"]
    assert {one["status"] for one in (brighter, seeded, other)} == {"QUEUED"}
    assert {one["verdict"] for one in (brighter, seeded, other)} == {None}
    render(api, hand)
    assert len(archived(api, "/v1/campaigns/spring/export.zip")) == 6
    assert api.get("/v1/jobs", params={"campaign": "spring"}).json()["data"][0]["campaign"] == "spring"


def test_drafts_are_small_and_masters_have_their_seed(api: TestClient, hand: Hand) -> None:
    record = make(api, draft={"steps": 2, "scale": 0.5}, placements=["128x128", "256x128"], variants=2, steps=8)
    assert (record["files"]["total"], record["drafts"]["total"]) == (0, 12)
    drafts = {one["name"]: one for one in files(api)}
    first = drafts["drafts/a1-256x128-v2.png"]
    assert (first["width"], first["height"], first["draft"]) == (128, 64, True)
    assert api.post("/v1/campaigns/spring/masters", json={"picks": [first["name"]]}).status_code == 409
    render(api, hand)
    said(api, "approve", first["name"])
    made = api.post("/v1/campaigns/spring/masters", json={}).json()
    assert made == {"made": ["a1-256x128-v2.png"], "existing": []}
    assert api.post("/v1/campaigns/spring/masters", json={}).json() == {"made": [], "existing": made["made"]}
    many = {"picks": ["drafts/b2-128x128-v1.png"], "placements": ["128x128", "64x192"]}
    assert api.post("/v1/campaigns/spring/masters", json=many).json()["made"] == [
        "b2-128x128-v1.png",
        "b2-64x192-v1.png",
    ]
    masters = {one["name"]: one for one in files(api, drafts=False)}
    assert masters["a1-256x128-v2.png"]["seed"] == first["seed"]
    assert (masters["b2-64x192-v1.png"]["width"], masters["b2-64x192-v1.png"]["height"]) == (64, 192)
    steps = {
        api.get(f"/v1/jobs/{one['job']}").json()["aiRecord"]["progress"]["steps"] for one in (*masters.values(), first)
    }
    assert steps == {2, 8}
    assert api.get("/v1/campaigns/spring").json()["campaign"]["state"] == "running"
    render(api, hand)
    assert sorted(archived(api, "/v1/campaigns/spring/export.zip")) == sorted(masters)
    assert len(archived(api, "/v1/campaigns/spring/export.zip?only=drafts")) == 12
    assert (
        api.post("/v1/campaigns/spring/masters", json={"picks": [first["name"]], "placements": ["9x9"]}).status_code
        == 400
    )


def test_contact_sheets(api: TestClient, hand: Hand) -> None:
    make(api, variants=6)  # 36 pictures: two pages
    assert api.get("/v1/campaigns/spring/contact-sheet.png").status_code == 400
    render(api, hand)
    first = api.get("/v1/campaigns/spring/contact-sheet.png")
    assert 'page=2>; rel="next"' in first.headers["link"]
    last = api.get("/v1/campaigns/spring/contact-sheet.png", params={"page": 2})
    assert "link" not in last.headers
    with Image.open(io.BytesIO(first.content)) as full, Image.open(io.BytesIO(last.content)) as rest:
        assert full.format == "PNG"
        assert full.size == rest.size
        painted = [sum(image.convert("L").histogram()[:250]) for image in (full, rest)]
        assert painted[0] > 4 * painted[1] > 0  # thirty pictures, and six
    assert api.get("/v1/campaigns/spring/contact-sheet.png", params={"page": 3}).status_code == 400
    sheet = api.get("/v1/campaigns/spring/contact-sheet.pdf")
    assert sheet.content.startswith(b"%PDF")
    assert re.findall(rb"/Count (\d+)", sheet.content)[-1] == b"2"


def test_a_shared_link_needs_no_key_and_can_be_closed(api: TestClient, hand: Hand, database: Database) -> None:
    make(api)
    render(api, hand, but={"b2-wide.png"})
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert api.post("/v1/campaigns/spring/shares", json={"expiresAt": "2020-01-01T00:00:00Z"}).status_code == 400
    made = api.post("/v1/campaigns/spring/shares", json={"expiresAt": soon})
    assert made.status_code == 201
    link = made.json()["url"].removeprefix("http://127.0.0.1:8000")
    api.headers.pop("Authorization")
    shown = api.get(link).json()
    assert (shown["campaign"], len(shown["files"])) == ("spring", 5)
    there = api.get(shown["files"][0]["url"].removeprefix("http://127.0.0.1:8000"))
    assert there.status_code == 302
    assert api.get(there.headers["location"].removeprefix("http://127.0.0.1:8000")).content.startswith(b"\x89PNG")
    assert len(archived(api, f"{link}/export.zip")) == 5
    failed = next(n for n in range(6) if f"/files/{n}" not in "".join(one["url"] for one in shown["files"]))
    assert api.get(f"{link}/files/{failed}").status_code == 404
    assert api.get("/shares/sh_nobodys").status_code == 404
    with database.transaction() as session:
        session.execute(text("UPDATE share_links SET expires_at = now()"))
    expired = api.get(link)
    assert (expired.status_code, expired.json()["code"]) == (403, "link_expired")


def test_a_revoked_link_is_closed_at_once(api: TestClient) -> None:
    make(api)
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    made = api.post("/v1/campaigns/spring/shares", json={"expiresAt": soon, "only": "done"}).json()
    path = made["url"].removeprefix("http://127.0.0.1:8000")
    assert api.get(path).json()["files"] == []
    for _ in range(2):
        assert api.delete(f"/v1/campaigns/spring/shares/{made['id']}").status_code == 204
    assert api.get(path).status_code == 403
    (listed,) = api.get("/v1/campaigns/spring/shares").json()["data"]
    assert (listed["opened"], listed["url"], listed["revokedAt"] is None) == (1, None, False)
