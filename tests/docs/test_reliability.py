"""The page of promises names its proofs; here each of them must exist."""

from __future__ import annotations

import re

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


def test_every_test_that_it_names_exists() -> None:
    assert len(NAMED) > 30
    for file, name in NAMED:
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), f"{file}::{name}"


def test_every_fault_test_is_on_it() -> None:
    written = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in (ROOT / "tests" / "faults").glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert written - set(NAMED) == set()


def test_it_can_be_found_and_its_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / "lifecycle.md"):
        assert "reliability.md" in page.read_text(encoding="utf-8"), page
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).is_file(), target


def test_its_settings_exist() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8")
    for setting in set(re.findall(r"`(FLUXFARM_\w+)`", PAGE)):
        assert f"| `{setting}` |" in table, setting
