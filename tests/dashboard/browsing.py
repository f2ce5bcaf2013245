"""A real Chromium that watches every page: what it says, what it asks for and what its policy forbids."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright

from tests.programs import needed, node_modules

NODE: Final = Path(__file__).parent / "node"
#: what is not AA, or worse; "minor" and "moderate" are told by axe, too, and are matters of taste more often
SERIOUS: Final = ("serious", "critical")
REPORTS: Final = """
window.reports = [];
document.addEventListener('securitypolicyviolation', (event) =>
  window.reports.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""


#: what stands beyond the right edge of the screen, and cannot be scrolled to in a box of its own
BEYOND: Final = """
[...document.querySelectorAll('main *')].filter((one) => {
  const { right, width } = one.getBoundingClientRect();
  if (!width || right <= document.documentElement.clientWidth + 1 || one.closest('.hidden')) return false;
  for (let box = one.parentElement; box.id !== 'main'; box = box.parentElement) {
    if (['auto', 'scroll', 'hidden', 'clip'].includes(getComputedStyle(box).overflowX)) return false;
  }
  return true;
}).map((one) => one.outerHTML.slice(0, 120))
"""


def beyond(page: Page) -> list[str]:
    """What a visitor cannot see for want of width."""
    found: list[str] = page.evaluate(BEYOND)
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return [*found, f"the page, by {wide} pixels"] if wide > 0 else found


def axe() -> str:
    """The accessibility checker, as a script."""
    return (node_modules(NODE) / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


@dataclass
class Watched:
    """A browser context of one visitor, and all that went wrong in it."""

    context: BrowserContext
    url: str
    faults: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def page(self) -> Page:
        """A new tab."""
        page = self.context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda said: self.faults.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", self._note)
        return page

    def _note(self, request: Request) -> None:
        found = urlsplit(request.url)
        if found.scheme not in ("data", "blob"):
            self.hosts.add(found.netloc)

    def check(self, page: Page) -> None:
        """No report of the policy so far, no other host, nothing on the console."""
        reports: list[str] = page.evaluate("window.reports")
        assert not reports, reports
        assert not self.faults, self.faults
        assert self.hosts <= {urlsplit(self.url).netloc}, self.hosts


@contextmanager
def browsing() -> Iterator[Browser]:
    """Chromium without a screen."""
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=needed("chromium", "Debian's chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@contextmanager
def watched(browser: Browser, url: str, **options: Any) -> Iterator[Watched]:
    """A visitor with a clean browser, at a width and in a scheme."""
    context = browser.new_context(accept_downloads=True, bypass_csp=False, **options)
    context.add_init_script(REPORTS)
    yield Watched(context, url)
    context.close()


def log_in(page: Page, url: str, key: str) -> None:
    page.goto(f"{url}/dashboard/login")
    page.fill("#key", key)
    page.keyboard.press("Enter")
    page.wait_for_url("**/dashboard/")


def serious(page: Page, script: str) -> list[str]:
    """What axe-core calls serious or worse; it is put in by the debugger, as the policy lets no page load it."""
    page.evaluate(script)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:160]} {one['nodes'][0]['failureSummary'][:300]}"
        for one in found["violations"]
        if one["impact"] in SERIOUS
    ]
