from __future__ import annotations

from fluxfarm.jobs import JobState, diagram
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "lifecycle.md").read_text(encoding="utf-8")


def test_the_diagram_is_the_table_of_transitions() -> None:
    assert f"```mermaid\n{diagram()}\n```" in PAGE


def test_every_state_has_its_sentence() -> None:
    for state in JobState:
        assert f"| {state} | " in PAGE


def test_the_files_it_names_exist() -> None:
    words = [word.strip("`()") for word in PAGE.split() if word.startswith(("`", "(`")) and "/" in word]
    named = {word.strip("`(),.") for word in words if word.strip("`(),.").endswith(".py")}
    assert len(named) > 4
    for name in named:
        assert (ROOT / name).is_file(), name
