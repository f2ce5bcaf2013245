from __future__ import annotations

from pathlib import Path

import pytest

from fluxfarm.denials import DenyList
from fluxfarm.errors import InvalidField

LIST = DenyList.of_lines("# ours\n\nkernkraft\nrote  Nelke\n/\\bplan\\s?b\\b/\nß-Wort\n", "file")


@pytest.mark.parametrize(
    ("prompt", "place"),
    [
        ("a fox", None),
        ("ein KERNKRAFT werk", 0),
        ("kernkraftwerk", None),
        ("kern\u200bkraft!", 0),
        ("\uff4bernkra\uff46t", 0),
        ("eine Rote\n nelke.", 1),
        ("rotenelke", None),
        ("this is Plan B", 2),
        ("planb", 2),
        ("das SS-WORT", 3),
    ],
)
def test_words_are_found_however_they_are_written(prompt: str, place: int | None) -> None:
    assert LIST.find(prompt) == place


@pytest.mark.parametrize(
    ("entry", "prompt", "is_found"),
    [
        ("核弹", "一枚核弹爆炸", True),
        ("核弹", "核 弹", False),
        ("爆弾", "大きな爆弾の絵", True),
        ("テスト", "ﾃｽﾄ機", True),
        ("폭탄", "폭탄을 그려줘", True),
        ("ระเบิด", "รูประเบิดใหญ่", True),
        ("bomb", "一个bomb爆炸", True),
        ("bomb", "一个bombs爆炸", False),
        ("bomb", "bombé", False),
        ("tnt爆弾", "ein tnt爆弾", True),
        ("tnt爆弾", "atnt爆弾", False),
    ],
)
def test_scripts_without_spaces(entry: str, prompt: str, is_found: bool) -> None:
    assert (DenyList((entry,)).find(prompt) is not None) == is_found


@pytest.mark.parametrize("entry", ["", "x" * 201, "/(/", "/[/", "\u200b"])
def test_an_entry_that_is_none_is_named(entry: str) -> None:
    with pytest.raises(InvalidField) as caught:
        DenyList.read(["fine", entry], "safety.deny")
    assert caught.value.param == "safety.deny.1"


def test_an_expression_that_would_look_for_years_counts_as_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fluxfarm.denials.PATIENCE", 0.05)
    slow = DenyList(("fox", r"/(a|aa)+(b|\1)$/"))
    assert slow.find("a fine day") is None
    assert slow.find("a" * 200 + " day") == 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("Bj\xf6rk".encode("latin-1"))
    for path, why in ((tmp_path / "none", "No such file"), (tmp_path, "directory"), (tmp_path / "latin", "UTF-8")):
        with pytest.raises(InvalidField, match=why) as caught:
            DenyList.of_file(path, "FLUXFARM_DENY_FILE")
        assert caught.value.param == "FLUXFARM_DENY_FILE"
    (tmp_path / "windows").write_text("\ufeffkernkraft\r\nfox\r\n", encoding="utf-8")
    assert DenyList.of_file(tmp_path / "windows", "file").entries == ("kernkraft", "fox")


def test_two_lists_are_one() -> None:
    both = LIST + DenyList(("fox",))
    assert both.find("a fox") == len(LIST.entries)
