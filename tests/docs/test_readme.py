from __future__ import annotations

import re
from pathlib import Path

from fluxfarm.settings import Settings
from tests.conftest import ROOT
from tests.docs.settings_table import README, table

TEXT = README.read_text(encoding="utf-8")


def test_every_setting_is_in_the_table() -> None:
    assert table() in TEXT, "run python -m tests.docs.settings_table"
    assert all(field.description for field in Settings.model_fields.values())


def test_every_setting_that_the_documents_name_exists() -> None:
    known = {field.alias for field in Settings.model_fields.values()}
    for page in [README, ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        named = set(re.findall(r"\b(?:FLUXFARM|S3)_[A-Z_0-9]+[A-Z0-9]\b", page.read_text(encoding="utf-8")))
        assert named <= known, page


def test_links_and_pictures_lead_somewhere() -> None:
    for page in [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / Path(target)).exists(), f"{page}: {target}"


def test_it_starts_with_a_sentence_a_picture_and_two_commands() -> None:
    first = TEXT.split("## ")[0]
    assert first.index("Fluxfarm is a") < first.index("![") < first.index("make demo") < first.index("make test")
