"""Quick hands and slow lines: what a real Chromium makes of presses and updates that overtake each other."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from storage.repository import tenants
from tests.api.campaigns_made import files, make
from tests.api.samples import Hand
from tests.clients.conftest import Place
from tests.dashboard.browsing import axe, log_in, serious, watched
from tests.e2e.farms import wait_for

pytestmark = [pytest.mark.xdist_group("browser"), pytest.mark.timeout(120)]


@pytest.fixture
def spring(idle: Place, hand: Hand) -> Iterator[httpx.Client]:
    """A campaign of six files, all rendered; gives a client of its owner."""
    with httpx.Client(base_url=idle.url, headers={"Authorization": f"Bearer {idle.key}"}, timeout=20) as api:
        make(api)
        for one in files(api):
            hand.finish(hand.claim(one["job"]))
        yield api


@pytest.fixture
def page(chromium: Browser, idle: Place) -> Iterator[Page]:
    with watched(chromium, idle.url, viewport={"width": 1440, "height": 900}) as visitor:
        page = visitor.page()
        log_in(page, idle.url, idle.key)
        yield page


def test_two_fast_presses_judge_two_pictures(page: Page, idle: Place, spring: httpx.Client) -> None:
    page.goto(f"{idle.url}/dashboard/campaigns/spring")
    page.locator(".cell-link").first.focus()
    for key in "aar":
        page.keyboard.press(key)
    names = [one["name"] for one in files(spring)]
    expect(page.locator("#said")).to_have_text(f"Rejected {names[2]}.")
    assert [one["verdict"] for one in files(spring)] == ["approve", "approve", "reject", None, None, None]
    page.keyboard.press("u")
    expect(page.locator("#said")).to_have_text(f"Taken back: {names[2]}.")


def test_a_word_between_two_equal_ones_counts(page: Page, idle: Place, spring: httpx.Client) -> None:
    page.goto(f"{idle.url}/dashboard/campaigns/spring")
    (first, *_) = files(spring)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/reviews", hold)
    page.locator(".cell-link").first.focus()
    for key in ("a", "ArrowLeft", "a", "ArrowLeft", "r", "ArrowLeft", "a"):
        page.keyboard.press(key)
    expect(page.locator(".cell-link").nth(1)).to_be_focused()
    assert len(held) == 1
    page.unroute("**/reviews")  # what is held goes on
    expect(page.locator("#said")).to_have_text(f"Approved {first['name']}.")
    wait_for(lambda: len(spring.get("/v1/campaigns/spring/reviews").json()["data"]) >= 3, 10)
    page.keyboard.press("u")
    expect(page.locator("#said")).to_have_text(f"Taken back: {first['name']}.")
    said = [one["verdict"] for one in spring.get("/v1/campaigns/spring/reviews").json()["data"]]
    assert sorted(said) == ["approve", "approve", "reject", "reject"]
    assert files(spring)[0]["verdict"] == "reject"


def test_a_double_click_judges_once(page: Page, idle: Place, spring: httpx.Client) -> None:
    page.goto(f"{idle.url}/dashboard/campaigns/spring")
    page.get_by_role("button", name="Approve").dblclick()
    page.locator(".cell-link").last.focus()
    page.keyboard.press("r")  # comes after both clicks
    expect(page.locator("#said")).to_contain_text("Rejected")
    assert [one["verdict"] for one in files(spring)] == ["approve", None, None, None, None, "reject"]


def test_a_new_try_is_followed_though_the_filter_finds_it_no_more(
    page: Page, idle: Place, spring: httpx.Client, hand: Hand
) -> None:
    page.goto(f"{idle.url}/dashboard/campaigns/spring?status=SUCCESS")
    expect(page.locator("#live")).to_have_text("live")
    cell = page.locator(".cell-link").first
    before = cell.get_attribute("href")
    cell.focus()
    page.keyboard.press("g")
    expect(cell.locator(".cell-none")).to_have_text("queued")
    (first, *_) = files(spring)
    expect(cell).to_have_attribute("href", f"/dashboard/jobs/{first['job']}")
    assert before != f"/dashboard/jobs/{first['job']}"
    hand.finish(hand.claim(first["job"]))
    expect(cell.locator("img")).to_have_attribute("src", f"/dashboard/thumbnails/{first['job']}/0")


def test_a_verdict_that_is_not_taken_is_not_shown(page: Page, idle: Place, spring: httpx.Client) -> None:
    page.goto(f"{idle.url}/dashboard/campaigns/spring")
    page.route("**/reviews", lambda route: route.abort())
    page.locator(".cell-link").first.focus()
    page.keyboard.press("a")
    expect(page.locator("#said")).to_contain_text("The farm cannot be reached.")
    expect(page.locator(".cell-body").first).to_have_attribute("data-verdict", "none")
    assert [one["verdict"] for one in files(spring)] == [None] * 6
    page.keyboard.press("c")
    page.keyboard.type("more sun")
    page.get_by_role("button", name="Say it").click()
    expect(page.locator("#said")).to_contain_text("The farm cannot be reached.")
    page.unroute("**/reviews")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("c")
    expect(page.locator("#comment-text")).to_have_value("")
    page.keyboard.type("less sea")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("c")
    expect(page.locator("#comment-text")).to_have_value("more sun")
    page.get_by_role("button", name="Say it").click()
    expect(page.locator("#said")).to_contain_text("Commented on")
    for typed in ("", "less sea"):
        page.keyboard.press("c")
        expect(page.locator("#comment-text")).to_have_value(typed)
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowRight")


def test_a_key_that_may_only_look_is_told_why_nothing_is_sent(page: Page, idle: Place, spring: httpx.Client) -> None:
    with idle.database.transaction() as session:
        tenant_id = tenants.authenticate(session, idle.key).tenant_id
        _, reader = tenants.create_key(session, tenant_id, "reader", ["read"])
    log_in(page, idle.url, reader)
    page.goto(f"{idle.url}/dashboard/campaigns/spring")
    page.locator(".cell-link").first.focus()
    page.keyboard.press("u")
    expect(page.locator("#said")).to_have_text("There is nothing to take back.")
    page.keyboard.press("c")
    page.keyboard.type("more sun")
    page.get_by_role("button", name="Say it").click()
    expect(page.locator("#said")).to_contain_text("Nothing was sent")
    assert spring.get("/v1/campaigns/spring/reviews").json()["data"] == []


def test_an_update_waits_while_the_focus_is_inside(page: Page, idle: Place, spring: httpx.Client) -> None:
    make(spring, name="autumn")
    page.goto(f"{idle.url}/dashboard/campaigns/autumn")
    expect(page.locator("#live")).to_have_text("live")
    actions = page.locator("#campaign-actions")
    actions.get_by_role("button", name="Pause").focus()
    assert spring.post("/v1/campaigns/autumn/pause").status_code == 200
    expect(page.locator("#campaign-head .badge")).to_have_text("paused", timeout=10_000)
    expect(actions.get_by_role("button", name="Pause")).to_be_focused()
    page.locator("#main").focus()
    expect(actions.get_by_role("button", name="Resume")).to_be_visible()


def test_a_stream_that_was_refused_is_asked_for_again(page: Page, idle: Place) -> None:
    refused = []

    def refuse_once(route: Route) -> None:
        refused.append(route.request.url)
        if len(refused) == 1:
            route.fulfill(status=503, content_type="text/html", body="busy")
        else:
            route.continue_()

    page.clock.install()
    page.route("**/dashboard/events", refuse_once)
    page.goto(f"{idle.url}/dashboard/")
    expect(page.locator("#notice")).to_contain_text("asks again in 5 seconds")
    page.clock.fast_forward(5_000)
    expect(page.locator("#live")).to_have_text("live")
    expect(page.locator("#notice")).to_be_hidden()


@pytest.mark.parametrize("place", ["", "jobs/{job}"])
def test_a_stream_that_never_opens_is_asked_for_again(
    page: Page, idle: Place, spring: httpx.Client, place: str
) -> None:
    (first, *_) = files(spring)
    spring.post("/v1/campaigns/spring/reviews", json={"files": [first["name"]], "verdict": "regenerate"})
    (first, *_) = files(spring)
    asked = []

    def hold_once(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) > 1:
            route.continue_()

    page.clock.install()
    page.route("**/events", hold_once)
    page.goto(f"{idle.url}/dashboard/{place.format(**first)}")
    page.evaluate(WATCH_NOTICE)
    wait_for(lambda: page.evaluate("true") and len(asked) == 1, 10)
    page.clock.fast_forward(45_000)
    wait_for(lambda: page.evaluate("told.length > 1 && told.at(-1) === ''"), 10)
    assert page.evaluate("told[0]").startswith("The line to the farm is cut")
    assert len(asked) == 2


def test_a_farm_on_this_machine_needs_no_network(page: Page, idle: Place, spring: httpx.Client) -> None:
    make(spring, name="autumn")
    page.goto(f"{idle.url}/dashboard/campaigns/autumn")
    expect(page.locator("#live")).to_have_text("live")
    page.evaluate("dispatchEvent(new Event('offline'))")
    assert spring.post("/v1/campaigns/autumn/pause").status_code == 200
    expect(page.locator("#campaign-head .badge")).to_have_text("paused", timeout=10_000)
    expect(page.locator("#live")).to_have_text("live")
    expect(page.locator("#notice")).to_be_hidden()


WATCH_NOTICE = """() => {
const notice = document.getElementById("notice");
window.told = [];
new MutationObserver(() => told.push(notice.textContent)).observe(notice, { childList: true });
}"""

COUNTING = """
window.lines = [];
window.EventSource = class extends EventSource { constructor(...all) { super(...all); lines.push(this); } };
"""


def draw(page: Page, prompt: str) -> None:
    page.fill("#prompt", prompt)
    page.click("#render")
    expect(page.locator("#results .result").first).to_have_attribute("aria-label", prompt)


def test_a_card_that_is_taken_away_is_followed_no_more(page: Page, idle: Place) -> None:
    page.add_init_script(COUNTING)
    page.goto(f"{idle.url}/dashboard/playground")
    for number in range(6):
        draw(page, f"cup {number}")
    expect(page.locator("#results .result")).to_have_count(4)
    assert page.evaluate("lines.map((one) => one.readyState === EventSource.CLOSED)") == [True] * 2 + [False] * 4


def test_a_picture_that_cannot_be_shown_is_told_of(page: Page, idle: Place, hand: Hand) -> None:
    page.goto(f"{idle.url}/dashboard/playground")
    draw(page, "a cup")
    card = page.locator("#results .result").first
    uuid = (card.get_by_role("link", name="Open the job").get_attribute("href") or "").rpartition("/")[2]
    page.route(f"**/dashboard/v1/jobs/{uuid}", lambda route: route.abort())
    hand.finish(hand.claim(uuid))
    expect(card).to_contain_text("The picture is done, but cannot be shown: The farm cannot be reached.")


def test_a_form_that_came_after_the_session_is_sent_once_more_by_loading_again(page: Page, idle: Place) -> None:
    page.goto(f"{idle.url}/dashboard/new-campaign")
    page.evaluate("void (Storage.prototype.setItem = () => { throw new Error('full'); })")
    page.fill("#variants", "3")
    page.context.clear_cookies()
    page.get_by_role("button", name="Show the plan").click()
    expect(page.locator("h1")).to_have_text("The session is over")
    expect(page.get_by_text("what you typed is kept in this tab")).to_be_hidden()
    log_in(page.context.new_page(), idle.url, idle.key)
    page.reload()
    expect(page.locator("#variants")).to_have_value("3")
    expect(page.locator(".plan")).to_be_visible()


def test_a_page_that_the_browser_kept_sends_its_form_again(page: Page, idle: Place) -> None:
    page.goto(f"{idle.url}/dashboard/new-campaign")
    page.evaluate("document.getElementById('plan').dataset.sent = 'yes'")  # as the press before the way back left it
    page.get_by_role("button", name="Show the plan").click()
    expect(page.locator("#plan")).to_have_attribute("data-sent", "yes")
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    page.get_by_role("button", name="Show the plan").click()
    expect(page.get_by_role("button", name="Run it")).to_be_visible()


def test_what_was_changed_after_the_plan_is_planned_anew(page: Page, idle: Place) -> None:
    page.goto(f"{idle.url}/dashboard/new-campaign")
    page.get_by_role("button", name="Show the plan").click()
    run = page.get_by_role("button", name="Run it")
    expect(run).to_be_visible()
    page.fill("#variants", "3")
    expect(run).to_be_hidden()
    page.get_by_role("button", name="Plan anew").click()
    expect(run).to_be_visible()


def test_a_form_that_comes_after_the_session_keeps_what_was_typed(page: Page, idle: Place) -> None:
    page.goto(f"{idle.url}/dashboard/new-campaign?as=document")
    page.locator("#source").press_sequentially("# typed for an hour\n")
    page.fill("#rows", "sku\nA1\n")
    page.context.clear_cookies()
    page.get_by_role("button", name="Show the plan").click()
    expect(page.locator("h1")).to_have_text("The session is over")
    expect(page.get_by_text("what you typed is kept in this tab")).to_be_visible()
    assert serious(page, axe()) == []
    page.locator("#over").click()
    page.fill("#key", idle.key)
    page.keyboard.press("Enter")
    page.wait_for_url("**/dashboard/new-campaign?as=document")
    expect(page.locator("#notice")).to_contain_text("What you typed is here again")
    expect(page.locator("#rows")).to_have_value("sku\nA1\n")
    assert "# typed for an hour" in page.locator("#source").input_value()
    page.reload()
    expect(page.locator("#notice")).to_be_hidden()
