"""A campaign that is filled in: the form makes the document that others write by hand."""

from __future__ import annotations

import re
from html import unescape

import pytest
from starlette.testclient import TestClient

from api.dashboard.campaign_form import Fields, name_of_rows
from fluxfarm.campaigns.source import read_source
from tests.dashboard.test_campaigns import DROPPED, SALE, send
from tests.dashboard.test_pages import check_page

ROWS = "sku,colour\nA1,red\nB2,<b>blue</b>\n"
FIELDS = {
    "view": "form",
    "name": "spring",
    "model": "fluxfarm/flux-2-klein-small",
    "prompt": "a {colour} mug: it's \u201cnew\u201d",
    "rows": ROWS,
    "rows_name": "products.csv",
    "placements": ["banner-square", "banner-small-square"],
    "sizes": "128x128, 16:9",
    "variants": "2",
    "budget": "12.50",
    "files": "{}",
}


def written(page: str) -> str:
    """The document in the page."""
    (found,) = re.findall(r'name="source"[^>]*>(.*?)</textarea>', page, re.DOTALL)
    return unescape(found)


def test_the_form_is_planned_and_run(browser: TestClient) -> None:
    check_page(browser.get("/dashboard/new-campaign"))
    plan = send(browser, data=FIELDS | {"do": "plan"})
    assert plan.status_code == 200, plan.text
    assert "2 rows x 4 placements x 2 variants = 16" in plan.text
    assert "<b>blue" not in plan.text
    assert 'value="banner-square" checked' in plan.text
    check_page(plan)
    assert browser.get("/dashboard/v1/campaigns").json()["data"] == []
    made = send(browser, data=FIELDS | {"do": "run"})
    assert made.headers["location"] == "/dashboard/campaigns/spring"
    made_of = browser.get("/dashboard/v1/campaigns/spring").json()["campaign"]
    assert (made_of["files"]["total"], made_of["budget"], made_of["drafts"]) == (16, "12.500000", None)
    names = {one["key"] for one in browser.get("/dashboard/v1/campaigns/spring/assets").json()["data"]}
    assert names == {"A1", "B2"}


def test_the_form_goes_on_as_the_document_that_it_makes(browser: TestClient) -> None:
    ticked = FIELDS | {"prompt": "a {colour} mug\r\non wood", "drafts": "yes", "review": "yes", "do": "write"}
    picture = ("dropped", ("logo.png", (DROPPED / "logo.png").read_bytes()))
    page = send(browser, data=ticked, files=[picture])
    assert page.status_code == 200
    check_page(page)
    spec = read_source(written(page.text)).spec
    assert (spec.name, spec.key, spec.review, spec.references) == ("spring", "sku", True, ["logo.png"])
    assert spec.prompt == "a {colour} mug\non wood"
    assert [one.size for one in spec.placements] == ["banner-square", "banner-small-square", "128x128", "16:9"]
    assert spec.draft is not None
    assert spec.draft.scale == 0.5


def test_a_picture_whose_name_has_braces_is_no_placeholder(browser: TestClient) -> None:
    picture = ("dropped", ("logo{1}.png", (DROPPED / "logo.png").read_bytes()))
    page = send(browser, data=FIELDS | {"do": "plan"}, files=[picture])
    assert (page.status_code, "2 rows x 4 placements" in page.text) == (200, True)


def test_a_dropped_picture_is_taken_away_again(browser: TestClient) -> None:
    logo = (DROPPED / "logo.png").read_bytes()
    page = send(browser, data=FIELDS | {"do": "plan"}, files=[("dropped", (name, logo)) for name in ("a.png", "b.png")])
    assert re.findall('name="without" value="([^"]+)"', page.text) == ["a.png", "b.png"]
    check_page(page)
    (kept,) = re.findall('name="files" value="([^"]+)"', page.text)
    left = send(browser, data=FIELDS | {"files": unescape(kept), "without": "a.png", "do": "write"})
    assert read_source(written(left.text)).spec.references == ["b.png"]


def test_a_dropped_specification_takes_the_place_of_the_form(browser: TestClient) -> None:
    dropped = [("dropped", (name, (SALE / name).read_bytes())) for name in ("campaign.yaml", "products.csv")]
    page = send(browser, data=FIELDS | {"do": "plan"}, files=dropped)
    assert written(page.text) == (SALE / "campaign.yaml").read_text(encoding="utf-8")


def test_rows_may_come_as_lines_of_json_or_not_at_all(browser: TestClient) -> None:
    lines = ("dropped", ("feed.jsonl", b'{"colour": "red"}\n{"colour": "blue"}\n'))
    page = send(browser, data=FIELDS | {"do": "plan"}, files=[lines])
    assert "2 rows x 4 placements" in page.text
    pasted = send(browser, data=FIELDS | {"rows": ROWS.replace(",", "\t"), "do": "write"})
    assert read_source(written(pasted.text)).spec.key == "sku"
    instead = send(browser, data=FIELDS | {"rows_name": "feed.jsonl", "do": "write"})
    assert (read_source(written(instead.text)).spec.key, 'value="feed.csv"' in instead.text) == ("sku", True)
    typed = send(browser, data=FIELDS | {"rows": '{"colour": "red"}\n{"colour": "blue"}', "do": "plan"})
    assert "2 rows x 4 placements" in typed.text
    shouted = send(browser, data=FIELDS | {"rows_name": "PRODUCTS.CSV", "do": "write"})
    assert read_source(written(shouted.text)).spec.key == "sku"
    without = send(browser, data=FIELDS | {"rows": "", "prompt": "a mug", "do": "plan"})
    assert "4 placements x 2 variants = 8" in without.text


@pytest.mark.parametrize(
    ("rows", "key"),
    [
        ('\ufeff\n\nsku;colour\n"A\n1";red\nB2;blue\n', "sku"),
        (" sku ,colour\nA1,red\nA2,red\n", "sku"),
        ("sku,colour\nA1,red\na-1,red\nA 1,blue\n", None),
        ("sku,colour\nA1,red\na1,blue\n", None),
        ("sku,colour\n!!!,red\nA1,blue\n", None),
        ("sku,colour\n,red\nA1,blue\n", None),
        (f"sku,colour\n{'a' * 81},red\nA1,blue\n", None),
        ("sku,colour\ncon,red\nA1,blue\n", None),
        (f"{'s' * 201},colour\nA1,red\n", None),
        ('sku,colour\n"A1,red\n', None),
        ("sku,colour\n", None),
        ('{"sku": "A1"}\n', None),
    ],
)
def test_files_are_named_after_the_first_column_only_where_it_names_them(rows: str, key: str | None) -> None:
    name = name_of_rows("products.csv", rows)
    assert read_source(Fields().document(name, rows, [])).spec.key == key


def test_what_is_wrong_in_the_form_is_named_and_what_was_typed_stays(browser: TestClient) -> None:
    for wrong, sentence in (
        ({"name": "No Good"}, "name"),
        ({"prompt": "a {price} mug"}, "price"),
        ({"prompt": ""}, "prompt"),
        ({"model": "nonsense"}, "nonsense"),
        ({"sizes": "huge"}, "huge"),
        ({"placements": "moon"}, "moon"),
        ({"variants": "many"}, "variants"),
        ({"variants": "9" * 5000}, "variants"),
        ({"budget": "-1"}, "budget"),
        ({"budget": "a lot"}, "budget"),
        ({"rows": "sku,colour\nA1\n"}, "row 1, line 2"),
        ({"rows": "sku," + "x" * 140_000}, "rows"),
    ):
        page = send(browser, data=FIELDS | wrong | {"do": "run"})
        assert page.status_code == 400, (wrong, page.status_code)
        (told,) = re.findall(r'role="alert">(.*?)</div></div>', page.text, re.DOTALL)
        assert sentence in unescape(told), (wrong, told)
        assert 'name="view" value="form"' in page.text
        assert "line 1, column" not in told
        check_page(page)
    assert browser.get("/dashboard/v1/campaigns").json()["data"] == []
