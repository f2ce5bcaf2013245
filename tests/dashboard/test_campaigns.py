"""Campaigns in the browser without a script: dropped, planned, run, judged, delivered."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from html import unescape
from typing import Any

import pytest
from starlette.testclient import TestClient

from storage.database import Database
from storage.records import Tenant
from storage.repository import tenants
from tests.api.samples import Hand
from tests.conftest import ROOT
from tests.dashboard.conftest import log_in
from tests.dashboard.test_pages import check_page

SALE = ROOT / "examples" / "summer-sale"
DROPPED = ROOT / "tests" / "dashboard" / "dropped"  #: pictures that people drop beside a campaign
WITH_PICTURES = f"{(SALE / 'campaign.yaml').read_text(encoding='utf-8')}\nreferences: [logo.png, beach.png]\n"
SPEC = """\
name: spring
model: fluxfarm/flux-2-klein-small
prompt: "a {colour} mug"
rows: mugs.csv
key: sku
placements: [64x64, {name: wide, size: 128x64}]
steps: 2
"""
ROWS = "sku,colour\nA1,red\nB2,<b>blue</b>\n"
FORM = {"source": SPEC, "rows": ROWS, "rows_name": "mugs.csv", "files": "{}", "do": "run"}


def send(browser: TestClient, data: dict[str, Any], files: Sequence[tuple[str, tuple[str, bytes]]] = ()) -> Any:
    """What the form of a new campaign sends: always in parts, a field of files also when nothing was chosen."""
    return browser.post("/dashboard/campaigns", data=data, files=files or [("dropped", ("", b""))])


@pytest.fixture
def spring(browser: TestClient, hand: Hand) -> TestClient:
    """A campaign of four files, all rendered."""
    made = send(browser, data=FORM)
    assert (made.status_code, made.headers["location"]) == (303, "/dashboard/campaigns/spring"), made.text
    for one in browser.get("/dashboard/v1/campaigns/spring/assets").json()["data"]:
        hand.finish(hand.claim(one["job"]))
    return browser


def verdicts(browser: TestClient) -> list[str | None]:
    return [one["verdict"] for one in browser.get("/dashboard/v1/campaigns/spring/assets").json()["data"]]


def test_the_example_is_dropped_planned_and_run(browser: TestClient) -> None:
    others = (SALE / "products.csv", DROPPED / "logo.png", DROPPED / "beach.png")
    dropped = [
        ("dropped", ("campaign.yaml", WITH_PICTURES.encode())),
        *(("dropped", (path.name, path.read_bytes())) for path in others),
    ]
    plan = send(browser, files=dropped, data={"do": "plan"})
    assert plan.status_code == 200, plan.text
    assert "40 rows x 2 placements = 80" in plan.text
    assert browser.get("/dashboard/v1/campaigns").json()["data"] == []
    fields = {
        name: unescape(found[1])
        for name in ("files", "rows_name")
        if (found := re.search(rf'name="{name}" value="([^"]*)"', plan.text))
    }
    for name in ("source", "rows"):
        found = re.search(rf'name="{name}"[^>]*>(.*?)</textarea>', plan.text, re.DOTALL)
        assert found is not None
        fields[name] = unescape(found[1])
    assert set(fields["files"].split('"')) >= {"logo.png", "beach.png"}
    less = send(browser, data=fields | {"without": "beach.png", "do": "plan"})
    assert re.findall('name="without" value="([^"]+)"', less.text) == ["logo.png"]
    assert "beach.png" in less.text, "the specification still names it, which is said"
    made = send(browser, data=fields | {"do": "run"})
    assert made.headers["location"] == "/dashboard/campaigns/summer-sale"
    again = send(browser, data=fields | {"do": "run"})
    assert again.headers["location"] == "/dashboard/campaigns/summer-sale"
    assert browser.get("/dashboard/v1/campaigns/summer-sale").json()["campaign"]["files"]["total"] == 80


def test_a_mistake_is_shown_with_its_place_and_nothing_typed_is_lost(browser: TestClient) -> None:
    for wrong, sentence in (
        (
            {"source": SPEC.replace("prompt:", "promt:")},
            "&#39;promt&#39; is no field here; did you mean &#39;prompt&#39;?",
        ),
        ({"source": "a: ["}, "line 2, column 1"),
        ({"rows": ""}, "the rows &#39;mugs.csv&#39; are missing"),
        ({"rows": "sku,colour\nA1\nA1,red\n"}, "row 1, line 2, field &#39;colour&#39;"),
        ({"files": "nonsense"}, "drop the files once more"),
    ):
        page = send(browser, data=FORM | wrong)
        assert page.status_code == 400, wrong
        assert sentence in page.text, (wrong, re.findall(r'role="alert">.*?</div></div>', page.text, re.DOTALL))
        check_page(page)
    useless = send(browser, files=[("dropped", ("notes.docx", b"x"))], data=FORM)
    assert "of no use here" in useless.text
    broken = send(browser, files=[("dropped", ("logo.png", b"x"))], data=FORM)
    assert "Send a PNG, JPEG or WebP" in broken.text
    assert browser.get("/dashboard/v1/campaigns").json()["data"] == []


def test_without_a_specification_nothing_is_run(browser: TestClient) -> None:
    for sent in ({"do": "run"}, {"do": "run", "source": " "}, {"do": "plan", "rows": ROWS}):
        page = send(browser, sent)
        assert page.status_code == 400, sent
        assert "There is no specification" in page.text
        check_page(page)
    assert browser.get("/dashboard/v1/campaigns").json()["data"] == []


def test_a_long_name_of_a_file_keeps_its_ending(browser: TestClient) -> None:
    page = send(
        browser, FORM | {"do": "plan"}, [("dropped", (f"{'a' * 300}.png", (DROPPED / "logo.png").read_bytes()))]
    )
    assert page.status_code == 200
    assert f"{'a' * 196}.png" in page.text


def test_a_refusal_keeps_what_was_typed(spring: TestClient) -> None:
    refused = send(spring, data=FORM | {"source": SPEC.replace("mug", "tall mug")})
    assert refused.status_code == 409
    assert "tall mug" in refused.text
    assert "&#39;spring&#39;" in refused.text
    check_page(refused)


def test_a_form_that_cannot_be_read_is_told_so(browser: TestClient) -> None:
    for kind, sent in (("multipart/form-data", b"x"), ("multipart/form-data; boundary=x", b"--y\r\n")):
        page = browser.post("/dashboard/campaigns", content=sent, headers={"Content-Type": kind})
        assert page.status_code == 400, kind
        assert "The form cannot be read" in page.text
        check_page(page)


def test_no_charset_makes_a_mistake_of_the_farm(browser: TestClient) -> None:
    for charset, text in (
        ("punycode", b"a-99999999"),
        ("utf-7", b"+2AA-"),
        ("utf-8", b"a\x00b"),
        ("nonsense", b"a\x00b"),
    ):
        sent = b'--x\r\nContent-Disposition: form-data; name="source"\r\n\r\n%b\r\n--x--\r\n' % text
        kind = f"multipart/form-data; boundary=x; charset={charset}"
        page = browser.post("/dashboard/campaigns", content=sent, headers={"Content-Type": kind})
        assert page.status_code == 400, (charset, page.status_code)
        check_page(page)


def test_the_board_judges_what_is_ticked(spring: TestClient) -> None:
    page = spring.get("/dashboard/campaigns/spring")
    check_page(page)
    assert "<b>blue" not in page.text
    names = [unescape(name) for name in re.findall(r'name="files" value="([^"]+)"', page.text)]
    assert len(names) == 4
    judged = spring.post(
        "/dashboard/campaigns/spring/review", data={"verdict": "approve", "files": names[:2], "back": "verdict=none"}
    )
    assert judged.headers["location"] == "/dashboard/campaigns/spring?verdict=none"
    spring.post("/dashboard/campaigns/spring/review", data={"verdict": "reject", "files": names[2:3]})
    assert verdicts(spring) == ["approve", "approve", "reject", None]
    assert len(re.findall('class="cell-link"', spring.get("/dashboard/campaigns/spring?verdict=approve").text)) == 2
    nothing = spring.post("/dashboard/campaigns/spring/review", data={"verdict": "approve"})
    assert nothing.status_code == 400
    assert "Tick a picture" in nothing.text


def test_a_verdict_is_taken_back(spring: TestClient) -> None:
    (first, *_) = [one["name"] for one in spring.get("/dashboard/v1/campaigns/spring/assets").json()["data"]]
    for verdict, after in (("approve", "approve"), ("withdraw", None), ("reject", "reject"), ("comment", "reject")):
        said = spring.post("/dashboard/v1/campaigns/spring/reviews", json={"files": [first], "verdict": verdict})
        assert said.status_code == 200, said.text
        assert verdicts(spring)[0] == after
    assert len(spring.get("/dashboard/v1/campaigns/spring/reviews").json()["data"]) == 4


def test_a_campaign_is_delivered_and_shared(spring: TestClient) -> None:
    check_page(spring.get("/dashboard/campaigns/spring/deliver"))
    archive = spring.get("/dashboard/v1/campaigns/spring/export.zip")
    with zipfile.ZipFile(io.BytesIO(archive.content)) as found:
        assert len(found.namelist()) == 6
    made = spring.post("/dashboard/campaigns/spring/shares", data={"days": "3", "only": "done"})
    (link,) = re.findall(r'value="http://127.0.0.1:8000(/shares/[^"]+)"', made.text)
    assert len(spring.get(link).json()["files"]) == 4
    page = spring.get("/dashboard/campaigns/spring/deliver").text
    assert link not in page
    (close,) = re.findall(r'action="(/dashboard/campaigns/spring/shares/[^"]+/revoke)"', page)
    assert spring.post(close).status_code == 303
    assert spring.get(link).status_code == 403


def test_a_page_that_answers_a_form_tells_where_it_stands(spring: TestClient) -> None:
    for answer in (
        send(spring, FORM | {"do": "plan"}),
        spring.post("/dashboard/campaigns/spring/shares", data={"days": "3", "only": "done"}),
        spring.post("/dashboard/usage/keys", data={"name": "shop", "scopes": "read"}),
    ):
        (place,) = re.findall(r'<body data-page="([^"]+)">', answer.text)
        assert spring.get(place).status_code == 200, place


def test_older_campaigns_are_on_the_next_page(browser: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.dashboard.campaigns.SHOWN", 2)
    for name in ("one", "two", "three"):
        send(browser, data=FORM | {"source": SPEC.replace("spring", name)})
    listed = re.compile(r'href="/dashboard/campaigns/(\w+)"')
    newest = browser.get("/dashboard/campaigns")
    assert listed.findall(newest.text) == ["three", "two"]
    (older,) = re.findall(r'rel="next" href="([^"]+)"', newest.text)
    last = browser.get(unescape(older))
    assert listed.findall(last.text) == ["one"]
    assert 'rel="next"' not in last.text
    check_page(last)
    for wrong in ("x", "0001-01-01T00:00:00+14:00"):
        assert browser.get("/dashboard/campaigns", params={"before": wrong}).status_code == 400, wrong


def test_a_campaign_is_steered(browser: TestClient) -> None:
    send(browser, data=FORM)
    for step, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        assert browser.post(f"/dashboard/campaigns/spring/steer/{step}").status_code == 303
        assert browser.get("/dashboard/v1/campaigns/spring").json()["campaign"]["state"] == state
    assert browser.post("/dashboard/campaigns/spring/steer/resume").status_code == 409
    assert browser.post("/dashboard/campaigns/spring/steer/nonsense").status_code == 404
    check_page(browser.get("/dashboard/campaigns"))


def test_a_key_without_the_scope_looks_and_does_not_touch(
    browser: TestClient, visitor: TestClient, database: Database, tenant: Tenant
) -> None:
    send(browser, data=FORM)
    with database.transaction() as session:
        _, key = tenants.create_key(session, tenant.id, "reader", ["read"])
    log_in(visitor, key)
    board = visitor.get("/dashboard/campaigns/spring")
    assert board.status_code == 200
    assert 'value="approve"' not in board.text
    assert "steer" not in board.text
    for path in ("steer/pause", "shares", "masters"):
        assert visitor.post(f"/dashboard/campaigns/spring/{path}", data={"days": "1"}).status_code == 403, path
    assert send(visitor, data=FORM).status_code == 403
    assert visitor.get("/dashboard/new-campaign").status_code == 403
