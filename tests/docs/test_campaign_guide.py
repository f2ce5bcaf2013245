"""The guide to the first campaign: its file can be expanded, its commands exist, its presets are the code's."""

from __future__ import annotations

import ast
import re

import typer

from fluxfarm.campaigns.expansion import expand
from fluxfarm.campaigns.placements import PRESETS
from fluxfarm.campaigns.source import read_source
from fluxfarm.cli import app
from tests.conftest import ROOT

GUIDE = ROOT / "docs" / "guides" / "first-campaign.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


def table() -> str:
    rows = ["| placement | pixels |", "|---|---|", *(f"| `{name}` | {size} |" for name, size in PRESETS.items())]
    return "\n".join(rows)


def test_its_specification_is_one() -> None:
    (text,) = blocks("yaml")
    found = expand(read_source(text).spec)
    assert found.arithmetic == "2 rows x 2 locales x 2 surface x 2 placements x 2 variants = 32"
    assert found.assets[0].name == "drafts/en/T-1-stone-table-square-v1.png"
    assert found.assets[0].prompt == "Green tea on a stone table, soft morning light, the words {Fresh} on the label"
    german = next(one for one in found.assets if one.locale == "de")
    assert german.prompt == "Green tea auf: stone table, soft morning light, auf dem Etikett steht Frisch"


def test_its_commands_exist() -> None:
    group = typer.main.get_command(app).commands["campaign"]  # type: ignore[attr-defined]
    said = re.findall(r"^fluxfarm campaign (\w+)", "\n".join(blocks("sh")), re.MULTILINE)
    assert len(said) >= 8
    assert set(said) <= set(group.commands)


def test_its_python_is_python() -> None:
    for text in blocks("python"):
        ast.parse(text)


def test_its_presets_are_the_code_s() -> None:
    assert table() in GUIDE.read_text(encoding="utf-8")
