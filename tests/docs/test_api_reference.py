from __future__ import annotations

from tests.conftest import ROOT
from tests.docs.api_reference import PAGE, page


def test_the_page_is_what_the_api_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.docs.api_reference"
    assert "docs/api.md" in (ROOT / "README.md").read_text(encoding="utf-8")
