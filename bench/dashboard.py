"""The dashboard in a real Chromium: the overview's first paint, and a wall of ten thousand pictures that scrolls.

Beside the wall a control is scrolled, a page of as many coloured boxes without a script or a picture: frames that are
late there are late by the browser and the machine.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from playwright.sync_api import Browser, Page
from pydantic import SecretStr
from sqlalchemy import text

from bench.farms import running_farm
from fluxfarm.catalog import KLEIN_SMALL
from fluxfarm.client import Client
from fluxfarm.embedded import Postgres
from fluxfarm.farmfile import RunningFarm
from storage.database import Database
from storage.records import Image, Job
from tests.dashboard.browsing import browsing, log_in

PICTURES: Final = 10_000
DRAWN: Final = 24  #: that are really rendered; the others share their objects
LOADS: Final = 11  #: of the overview, each by a browser that keeps nothing
FRAMES: Final = 300  #: of a scroll
FLOWN: Final = 1 / 5  #: of a screen in each frame: nobody sees a picture
WHEELED: Final = 1 / 25  #: as a wheel does; pictures come while it turns
LATE: Final = 50.0  #: milliseconds of a frame that is seen as a jerk
SIZES: Final = ("128x128", "192x128", "128x192", "224x128")
TRACED: Final = ["toplevel", "loading", "devtools.timeline", "disabled-by-default-devtools.timeline"]
DESK: Final[Any] = {"width": 1440, "height": 900}
PAINT: Final = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
ANSWERED: Final = "performance.getEntriesByType('navigation')[0].responseStart"
TRAVELLED: Final = """
[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
  .map((one) => [one.transferSize, one.decodedBodySize])
"""
#: one step a frame; gives the milliseconds between two frames
SCROLL: Final = """
async ([frames, screens]) => {
  const frame = () => new Promise(requestAnimationFrame);
  const gaps = [];
  let last = await frame();
  while (gaps.length < frames) {
    scrollBy(0, innerHeight * screens);
    const now = await frame();
    gaps.push(now - last);
    last = now;
  }
  return gaps;
}
"""
BARE: Final = """
(boxes) => {
  document.body.style.cssText = 'display: flex; flex-wrap: wrap; gap: 6px; margin: 0 50px 0 240px';
  document.body.innerHTML = Array.from({ length: boxes }, (_, at) =>
    `<div style="width: 184px; height: 200px; background: hsl(${at * 37 % 360} 40% 50%)"></div>`).join('');
}
"""
COPY: Final = """
    INSERT INTO jobs (uuid, {columns})
    SELECT gen_random_uuid(), {columns} FROM jobs, generate_series(1, :times) ORDER BY random()
"""
SHARE: Final = """
    INSERT INTO images (job_uuid, {columns})
    SELECT copied.uuid, {images} FROM jobs AS copied
      JOIN jobs AS drawn ON drawn.request ->> 'prompt' = copied.request ->> 'prompt' AND drawn.seq <= :drawn
      JOIN images AS one ON one.job_uuid = drawn.uuid
     WHERE copied.seq > :drawn
"""


@dataclass(frozen=True, slots=True)
class Opening:
    """The overview opened by browsers that have nothing of it: milliseconds to the first paint, and bytes."""

    best: float
    median: float
    worst: float
    answered: float  #: of the median load, until the first byte came: the farm's part
    busy: float  #: milliseconds of the processor that the page's main thread took until it painted
    travelled: int
    unpacked: int


@dataclass(frozen=True, slots=True)
class Scrolled:
    """Frames of a scroll, and the tasks of the page's main thread in Chromium's trace, milliseconds."""

    frames: int
    median: float
    late: list[float]  #: gaps between frames over ``LATE``
    longest: float  #: by the clock
    busiest: float  #: by the processor's time, which other programs on the machine do not lengthen
    busy: float  #: processor's time of all tasks, a frame


def measure() -> tuple[Opening, dict[str, Scrolled]]:
    """One farm, filled: the overview, and scrolls by their names."""
    with full_farm() as farm, browsing() as browser:
        state = _logged_in(browser, farm)
        return _open(browser, farm, state), _scrolls(browser, farm, state)


@contextmanager
def full_farm() -> Iterator[RunningFarm]:
    """A farm with ten thousand pictures, of which some were drawn."""
    with (
        TemporaryDirectory(prefix="fluxfarm-bench-") as folder,
        Postgres(Path(folder) / "postgres", durable=False) as postgres,
        running_farm(DATABASE_URL=postgres.url) as farm,
        Client(farm.url, farm.api_key) as client,
    ):
        asked = [
            client.submit(
                f"a large red star, number {n}", model=KLEIN_SMALL.slug, size=SIZES[n % len(SIZES)], steps=2, seed=n
            )
            for n in range(DRAWN)
        ]
        for one in asked:
            client.wait(one.uuid)
        database = Database(SecretStr(postgres.url), pool_size=1)
        _copy(database)
        database.close()
        yield farm


def _copy(database: Database) -> None:
    columns = ", ".join(one.name for one in Job.__table__.columns if one.name not in ("uuid", "seq", "external_id"))
    images = [one.name for one in Image.__table__.columns if one.name != "job_uuid"]
    share = SHARE.format(columns=", ".join(images), images=", ".join(f"one.{name}" for name in images))
    with database.engine.begin() as connection:
        drawn = connection.scalar(text("SELECT max(seq) FROM jobs"))
        connection.execute(text(COPY.format(columns=columns)), {"times": -(-PICTURES // DRAWN)})
        connection.execute(text(share), {"drawn": drawn})
        connection.execute(text("ANALYZE jobs, images"))


def _logged_in(browser: Browser, farm: RunningFarm) -> Any:
    context = browser.new_context()
    page = context.new_page()
    log_in(page, farm.url, farm.api_key)
    state = context.storage_state()
    context.close()
    return state


def _open(browser: Browser, farm: RunningFarm, state: Any) -> Opening:
    paints, sizes = [], []
    for _ in range(LOADS):
        context = browser.new_context(storage_state=state, viewport=DESK)
        page = context.new_page()
        page.goto(f"{farm.url}/dashboard/")
        page.wait_for_function(PAINT)
        paints.append((page.evaluate(PAINT), page.evaluate(ANSWERED)))
        sizes.append([sum(one) for one in zip(*page.evaluate(TRAVELLED), strict=True)])
        context.close()
    travelled, unpacked = max(sizes)
    paints.sort()
    median, answered = paints[len(paints) // 2]
    busy = _busy_until_painted(browser, farm, state)
    return Opening(paints[0][0], median, paints[-1][0], answered, busy, travelled, unpacked)


def _busy_until_painted(browser: Browser, farm: RunningFarm, state: Any) -> float:
    context = browser.new_context(storage_state=state, viewport=DESK)
    page = context.new_page()
    browser.start_tracing(page=page, categories=TRACED)
    page.goto(f"{farm.url}/dashboard/")
    page.wait_for_function(PAINT)
    events = json.loads(browser.stop_tracing())["traceEvents"]
    context.close()
    painted = min(one["ts"] for one in events if one["name"] == "firstContentfulPaint")
    return float(sum(one.get("tdur", 0) for one in _tasks(events) if one["ts"] < painted)) / 1000


def _scrolls(browser: Browser, farm: RunningFarm, state: Any) -> dict[str, Scrolled]:
    context = browser.new_context(storage_state=state, viewport=DESK)
    page = context.new_page()
    page.goto(f"{farm.url}/dashboard/gallery")
    _load_all(page)
    found = {"wall, flown through": _scroll(browser, page, FLOWN), "wall, by a wheel": _scroll(browser, page, WHEELED)}
    bare = context.new_page()
    page.close()
    bare.evaluate(BARE, PICTURES)
    found["bare boxes, flown through"] = _scroll(browser, bare, FLOWN)
    context.close()
    return found


def _scroll(browser: Browser, page: Page, screens: float) -> Scrolled:
    page.wait_for_timeout(1_500)
    browser.start_tracing(page=page, categories=TRACED)
    gaps = page.evaluate(SCROLL, [FRAMES, screens])
    tasks = _tasks(json.loads(browser.stop_tracing())["traceEvents"])
    return Scrolled(
        frames=len(gaps),
        median=statistics.median(gaps),
        late=[one for one in gaps if one > LATE],
        longest=max(one["dur"] for one in tasks) / 1000,
        busiest=max(one.get("tdur", 0) for one in tasks) / 1000,
        busy=sum(one.get("tdur", 0) for one in tasks) / 1000 / len(gaps),
    )


def _load_all(page: Page) -> None:
    """Scroll to the end until the wall knows of every picture, and back."""
    known = page.locator("#wall-count")
    while known.inner_text().endswith("+ pictures") or not known.inner_text():
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        page.wait_for_timeout(50)
    page.evaluate("scrollTo(0, 0)")


def _tasks(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tasks of the busiest main thread of a page."""
    threads = {(one["pid"], one["tid"]) for one in events if one.get("args", {}).get("name") == "CrRendererMain"}
    by_thread: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for one in events:
        if one["name"] == "RunTask" and one["ph"] == "X" and (thread := (one["pid"], one["tid"])) in threads:
            by_thread.setdefault(thread, []).append(one)
    return max(by_thread.values(), key=lambda found: sum(one["dur"] for one in found))
