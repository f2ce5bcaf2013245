"""The dashboard as people use it: a real Chromium, a real API, a real worker with the small model."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from fluxfarm.scopes import Scope
from storage.repository import tenants
from tests.clients.conftest import Place
from tests.dashboard.browsing import Watched, axe, beyond, log_in, serious, watched
from tests.dashboard.test_campaigns import DROPPED, SALE, WITH_PICTURES
from tests.e2e.farms import wait_for

pytestmark = [pytest.mark.xdist_group("browser"), pytest.mark.timeout(180)]
PAGES = (
    *(
        "/",
        "/playground",
        "/jobs",
        "/gallery",
        "/campaigns",
        "/new-campaign",
        "/new-campaign?as=document",
        "/providers",
    ),
    *("/models", "/models/compare?model=flux-2-dev&model=flux-2-klein-4b", "/usage", "/design", "/nothing"),
)


@pytest.fixture
def desk(chromium: Browser, place: Place) -> Iterator[Watched]:
    with watched(chromium, place.url, viewport={"width": 1440, "height": 900}) as visitor:
        yield visitor


def headers(place: Place) -> dict[str, str]:
    return {"Authorization": f"Bearer {place.key}"}


def rendered(place: Place, prompt: str, **changes: object) -> str:
    """A job that is over; gives its uuid."""
    asked = {"prompt": prompt, "size": "64x64", "num_inference_steps": 1}
    body = {"type": "IMAGE_GENERATOR", "model": "flux-2-klein-small", "promptObject": asked, **changes}
    reply = httpx.post(f"{place.url}/v1/jobs", json=body, headers=headers(place) | {"Prefer": "wait=60"}, timeout=70)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["aiRecord"]["uuid"])


def fit_for_a_phone_and_for_everybody(page: Page) -> None:
    assert serious(page, axe()) == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert beyond(page) == []
    page.set_viewport_size({"width": 1440, "height": 900})


def test_log_in_render_watch_it_denoise_and_look_at_the_job(desk: Watched, place: Place) -> None:
    page = desk.page()
    log_in(page, place.url, place.key)
    expect(page.locator("#live")).to_have_class(re.compile("is-on"))
    page.goto(f"{place.url}/dashboard/playground")
    page.fill("#prompt", "a large red heart in the centre on a white background")
    expect(page.locator("#estimate")).to_contain_text("No charge")
    page.fill("#size", "128x128")
    page.fill("#steps", "12")
    page.keyboard.press("Control+Enter")
    picture = page.locator("#results .result").first
    expect(picture.locator(".badge")).to_have_text("Success", timeout=30_000)
    expect(picture.locator(".stage a.zoom img")).to_be_visible()
    assert int(picture.locator(".stage").get_attribute("data-previews") or 0) >= 1
    page.click("[data-code=python]")
    compile(page.locator("#code").inner_text(), "snippet", "exec")
    expect(page.locator("#history .thumb")).to_have_count(1)
    picture.locator("a.zoom").click()
    expect(page.locator("#zoom")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Open the job").click()
    expect(page.locator("h1")).to_contain_text("a large red heart")
    expect(page.get_by_text("denoised and decoded")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download picture 1").click()
    assert Path(download.value.path()).stat().st_size > 500
    page.goto(f"{place.url}/dashboard/gallery")
    expect(page.locator(".wall.is-laid img")).to_have_count(1)
    desk.check(page)


def test_a_running_job_is_canceled_and_tried_again(desk: Watched, place: Place) -> None:
    page = desk.page()
    log_in(page, place.url, place.key)
    page.goto(f"{place.url}/dashboard/playground")
    page.fill("#prompt", "a blue bottle")
    page.fill("#size", "512x512")
    page.fill("#steps", "50")
    page.click("#render")
    picture = page.locator("#results .result").first
    expect(picture.locator(".badge")).to_have_text("Running")
    picture.get_by_role("button", name="Cancel").click()
    expect(picture.locator(".badge")).to_have_text("Canceled")
    expect(picture).to_contain_text("The caller canceled the job.")
    picture.get_by_role("link", name="Open the job").click()
    page.get_by_role("button", name="Try again").click()
    page.wait_for_url(re.compile("/dashboard/jobs/"))
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#status")).to_have_text("Canceled")
    desk.check(page)


def test_the_example_campaign_is_run_reviewed_by_keyboard_and_exported(desk: Watched, place: Place) -> None:
    page = desk.page()
    log_in(page, place.url, place.key)
    page.goto(f"{place.url}/dashboard/new-campaign")
    spec = WITH_PICTURES + "steps: 1\n"
    rows = "\n".join((SALE / "products.csv").read_text(encoding="utf-8").splitlines()[:4])
    dropped: Any = [
        {"name": "campaign.yaml", "mimeType": "application/yaml", "buffer": spec.encode()},
        {"name": "products.csv", "mimeType": "text/csv", "buffer": rows.encode()},
        *(
            {"name": name, "mimeType": "image/png", "buffer": (DROPPED / name).read_bytes()}
            for name in ("logo.png", "beach.png")
        ),
    ]
    page.set_input_files("#dropped", dropped)
    expect(page.locator(".arithmetic")).to_have_text("3 rows x 2 placements = 6")
    page.click("button[value=run]")
    page.wait_for_url("**/campaigns/summer-sale")
    expect(page.locator("#campaign-head .badge")).to_have_text("done", timeout=60_000)
    expect(page.locator('.cell-body[data-status="SUCCESS"]')).to_have_count(6)
    page.locator(".cell-link").first.focus()
    verdicts = page.locator(".cell-body").evaluate_all

    def stand() -> list[str]:
        return list(verdicts("cells => cells.map(cell => cell.dataset.verdict)"))

    page.keyboard.press("a")
    expect(page.locator("#said")).to_contain_text("Approved SUN-100")
    page.keyboard.press("r")
    expect(page.locator("#said")).to_contain_text("Rejected SUN-100")
    page.keyboard.press("a")
    expect(page.locator("#said")).to_contain_text("Approved SUN-101")
    assert stand()[:3] == ["approve", "reject", "approve"]
    page.keyboard.press("u")
    expect(page.locator("#said")).to_contain_text("Taken back")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("c")
    page.keyboard.type("more sun, please")
    page.get_by_role("button", name="Say it").click()
    expect(page.locator("#said")).to_contain_text("Commented on SUN-100")
    page.keyboard.press("v")
    expect(page.locator("#compare img").first).to_be_visible()
    page.keyboard.press("Escape")
    page.reload()
    assert stand() == ["approve", "reject", "none", "none", "none", "none"]
    fit_for_a_phone_and_for_everybody(page)
    page.locator(".cell-link").last.focus()
    page.keyboard.press("g")
    expect(page.locator("#said")).to_contain_text("A new try is on its way")
    expect(page.locator("#campaign-head .badge")).to_have_text("done", timeout=30_000)
    page.get_by_role("link", name="Deliver").click()
    expect(page.locator("h1")).to_have_text("Deliver")
    fit_for_a_phone_and_for_everybody(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Approved only").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert "SUN-100/coffee-mug-square.png" in archive.namelist()
        assert len(archive.namelist()) == 3
    desk.check(page)


@pytest.mark.parametrize(("width", "height", "scheme"), [(390, 844, "dark"), (1440, 900, "light")])
def test_every_page_is_fit_for_everybody(chromium: Browser, place: Place, width: int, height: int, scheme: str) -> None:
    uuid = rendered(place, "<script>alert(1)</script> a cup", tags=["playground"])
    checker = axe()
    viewport = {"width": width, "height": height}
    with watched(chromium, place.url, viewport=viewport, color_scheme=scheme) as visitor:
        page = visitor.page()
        page.goto(f"{place.url}/dashboard/login")
        wrong = serious(page, checker)
        log_in(page, place.url, place.key)
        for path in (*PAGES, f"/jobs/{uuid}", f"/jobs/{uuid}/provenance/0"):
            page.goto(f"{place.url}/dashboard{path}")
            wrong += [f"{path}: {one}" for one in serious(page, checker)]
            wrong += [f"{path}, beyond the screen: {one}" for one in beyond(page)]
            visitor.faults = [one for one in visitor.faults if "404" not in one]  # /nothing, on purpose
            visitor.check(page)
    assert not wrong, "\n".join(wrong)


def test_what_goes_wrong_is_said_and_nothing_is_lost(desk: Watched, place: Place, tmp_path: Path) -> None:
    with place.database.transaction() as session:
        tenant_id = tenants.authenticate(session, place.key).tenant_id
        key, secret = tenants.create_key(session, tenant_id, "short-lived", Scope)
    page = desk.page()
    log_in(page, place.url, secret)
    page.goto(f"{place.url}/dashboard/playground")
    page.fill("#prompt", "a prompt that took long to write")
    heavy = tmp_path / "heavy.png"
    heavy.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40 * 2**20))
    page.set_input_files("#files", str(heavy))
    expect(page.locator("#estimate")).to_contain_text("No charge")  # which is told later, and takes no complaint away
    expect(page.locator("#form-error")).to_contain_text("heavy.png has 40 MB; at most 20 MB are taken")
    page.goto(f"{place.url}/dashboard/")
    expect(page.locator("#live")).to_have_text("live")
    desk.context.set_offline(True)
    expect(page.locator("#notice")).to_contain_text("The line to the farm is cut")
    expect(page.locator("#live")).to_have_text("not live")
    desk.context.set_offline(False)
    page.goto(f"{place.url}/dashboard/playground")
    expect(page.locator("#prompt")).to_have_value("a prompt that took long to write")
    with place.database.transaction() as session:
        tenants.revoke_key(session, tenant_id, key.id)
    page.click("#render")
    expect(page.locator("#notice")).to_contain_text("The session is over")
    page.get_by_role("link", name="Log in").click()
    page.fill("#key", place.key)
    page.keyboard.press("Enter")
    expect(page.locator("#prompt")).to_have_value("a prompt that took long to write")
    listed = httpx.get(f"{place.url}/v1/jobs", headers=headers(place), timeout=20).json()
    assert listed["data"] == []


def test_the_overview_paints_at_once(desk: Watched, place: Place) -> None:
    """What travels is measured; the time is told by `pytest -s`, as tests share the machine."""
    page = desk.page()
    log_in(page, place.url, place.key)
    page.goto(f"{place.url}/dashboard/")
    wait_for(lambda: page.evaluate("performance.getEntriesByName('first-contentful-paint').length"))
    sizes = page.evaluate(
        "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        ".map(one => one.decodedBodySize)"
    )
    assert sum(sizes) <= 60_000, sizes
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    print(f"first paint after {painted:.0f} ms, {sum(sizes):,} bytes")  # noqa: T201 - the figures of `pytest -s`
