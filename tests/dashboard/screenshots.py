"""Takes the pictures of ``docs/screenshots``: ``python -m tests.dashboard.screenshots``, some two minutes.

A farm of its own is started, given something to show, and looked at by Chromium in light and in dark.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any, Final

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page

from tests.conftest import ROOT
from tests.dashboard.browsing import browsing, log_in
from tests.e2e.farms import Running, running, wait_for

FOLDER: Final = ROOT / "docs" / "screenshots"
LIMIT: Final = 60_000  #: bytes of a picture
DESK: Final[Any] = {"width": 1280, "height": 800}
HAND: Final[Any] = {"width": 390, "height": 844}
THINGS: Final = ("star", "heart", "bottle", "cup", "leaf", "sun", "tree", "house", "mug", "shoe", "fish", "moon")
COLOURS: Final = ("red", "blue", "green", "yellow", "orange", "purple", "black")
COMPARED: Final = "/models/compare?model=flux-2-dev&model=flux-2-klein-4b"
SALE: Final = """\
name: summer-sale
model: fluxfarm/flux-2-klein-small
prompt: "a large {colour} {product} in the centre on a {ground} background, {mood}"
key: sku
rows:
  - {sku: A-100, product: mug, colour: red, ground: white}
  - {sku: A-101, product: bottle, colour: yellow, ground: purple}
  - {sku: B-200, product: shoe, colour: blue, ground: orange}
  - {sku: B-201, product: heart, colour: red, ground: yellow}
axes: {mood: [morning light, studio light]}
placements: [{name: square, size: 128x128}, {name: wide, size: 192x128}]
seed: 7
provider: local
"""
#: prices can be shown without a call to anybody: the farm renders itself, and these lead nowhere
KEYS: Final = {"FLUXFARM_FAL_KEY": "k", "FLUXFARM_BFL_KEY": "k", "FLUXFARM_REPLICATE_KEY": "k"} | {
    f"FLUXFARM_{name}_URL": "http://127.0.0.1:9" for name in ("FAL", "BFL", "REPLICATE")
}


def seed(farm: Running) -> str:
    """Jobs and a campaign; gives the job that is shown."""
    posted = []
    for number in range(18):
        colour, thing = COLOURS[number % 7], THINGS[number * 5 % 12]
        ground = COLOURS[(number + 3) % 7] if number % 3 else "white"
        prompt = f"a large {colour} {thing} in the centre on a {ground} background"
        asked = {"prompt": prompt, "size": "128x128", "seed": number, "n": 4 if number == 17 else 1}
        more: dict[str, Any] = {"provider": "local", "tags": ["playground" if number % 2 else "spring"]}
        posted.append(farm.post(asked, **more).json()["aiRecord"]["uuid"])
    reply = httpx.post(
        f"{farm.farm.url}/v1/campaigns",
        content=SALE.encode(),
        headers=farm.headers | {"Content-Type": "application/yaml"},
        timeout=60,
    )
    assert reply.status_code == 201, reply.text
    for uuid in posted:
        farm.finished(uuid, 240)
    wait_for(lambda: farm.get("/v1/campaigns/summer-sale").json()["campaign"]["state"] == "done", 240)
    return str(posted[-1])


def main() -> None:
    """Take them all."""
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="fluxfarm-shots-") as folder,
        running(Path(folder) / "data", **KEYS) as farm,
    ):
        job = seed(farm)
        with browsing() as browser:
            for scheme in ("light", "dark"):
                shoot(browser, farm, scheme, job)


def shoot(browser: Browser, farm: Running, scheme: Any, job: str) -> None:
    """Every page in one scheme."""
    url, key = farm.farm.url, farm.farm.api_key
    context = browser.new_context(viewport=DESK, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{url}/dashboard/login")
    keep(page, f"login-{scheme}")
    log_in(page, url, key)
    render_one(page, url, scheme)
    for name, path in (
        ("jobs", "/jobs"),
        ("job", f"/jobs/{job}"),
        ("provenance", f"/jobs/{job}/provenance/0"),
        ("gallery", "/gallery"),
        ("campaigns", "/campaigns"),
        ("new-campaign", "/new-campaign"),
        ("deliver", "/campaigns/summer-sale/deliver"),
        ("providers", "/providers"),
        ("models", "/models"),
        ("compare", COMPARED),
        ("usage", "/usage"),
        ("design", "/design"),
        ("overview", "/"),
    ):
        if name == "overview":
            busy(farm)
        page.goto(f"{url}/dashboard{path}")
        page.wait_for_timeout(1_200)
        keep(page, f"{name}-{scheme}")
    board(page, url, scheme)
    context.close()
    context = browser.new_context(viewport=HAND, color_scheme=scheme)
    page = context.new_page()
    log_in(page, url, key)
    for name, path in (
        ("overview", "/"),
        ("playground", "/playground"),
        ("job", f"/jobs/{job}"),
        ("gallery", "/gallery"),
        ("new-campaign", "/new-campaign"),
        ("deliver", "/campaigns/summer-sale/deliver"),
        ("compare", COMPARED),
    ):
        page.goto(f"{url}/dashboard{path}")
        page.wait_for_timeout(1_000)
        keep(page, f"phone-{name}-{scheme}")
    review(page, url, f"phone-review-{scheme}", "a")
    page.keyboard.press("v")
    page.wait_for_timeout(600)
    keep(page, f"phone-side-by-side-{scheme}")
    context.close()


def busy(farm: Running) -> None:
    """Something in the queue and on the worker."""
    for number in range(10):
        asked = {"prompt": f"a {COLOURS[number % 7]} sun", "size": "192x192", "num_inference_steps": 30, "seed": number}
        farm.post(asked, provider="local", lane="bulk" if number % 3 else "interactive")


def render_one(page: Page, url: str, scheme: str) -> None:
    """The playground with a picture."""
    page.goto(f"{url}/dashboard/playground")
    page.fill("#prompt", "a large red heart in the centre on a white background")
    page.select_option("#provider", "local")
    page.click("#render")
    page.wait_for_selector("#results .stage a.zoom img", timeout=60_000)
    page.wait_for_timeout(1_500)
    page.evaluate("scrollTo(0, 0)")
    keep(page, f"playground-{scheme}")


def board(page: Page, url: str, scheme: str) -> None:
    """The plan of the form, and the review by keys."""
    page.goto(f"{url}/dashboard/new-campaign")
    page.click("button[value=plan]")
    page.wait_for_selector(".plan")
    page.wait_for_timeout(600)
    keep(page, f"plan-{scheme}")
    review(page, url, f"review-{scheme}", "a", "a", "r", "ArrowDown", "a")


def review(page: Page, url: str, name: str, *keys: str) -> None:
    """The board after some keys."""
    page.goto(f"{url}/dashboard/campaigns/summer-sale")
    page.wait_for_timeout(1_000)
    page.locator(".cell-link").first.focus()
    for key in keys:
        page.keyboard.press(key)
        page.wait_for_timeout(400)
    page.evaluate("scrollTo(0, 0)")
    keep(page, name)


def keep(page: Page, name: str) -> None:
    """As WebP, as good as it can be within the limit."""
    with Image.open(io.BytesIO(page.screenshot())) as shot:
        picture = shot.convert("RGB")
    for quality in (90, 80, 70, 60, 50, 40):
        out = io.BytesIO()
        picture.save(out, "WEBP", quality=quality, method=6)
        if len(out.getvalue()) <= LIMIT:
            break
    (FOLDER / f"{name}.webp").write_bytes(out.getvalue())


if __name__ == "__main__":
    main()
