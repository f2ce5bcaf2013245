"""What a campaign's text becomes: counted, expanded, named; and every mistake with its place and its reason."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fluxfarm.campaigns import archive, manifest
from fluxfarm.campaigns.archive import Entry, EntryChanged
from fluxfarm.campaigns.expansion import expand
from fluxfarm.campaigns.files import load
from fluxfarm.campaigns.placements import PRESETS
from fluxfarm.campaigns.source import published_schema, read_source
from fluxfarm.campaigns.spec import Spec
from fluxfarm.campaigns.starter import FILES
from fluxfarm.campaigns.templates import Template, slug
from fluxfarm.catalog import DEV
from fluxfarm.errors import InvalidCampaign, Issue

SPEC = """\
name: sale
model: fluxfarm/flux-2-klein-small
prompt: "{product} in {colour}"
rows: {csv: "CSV"}
key: sku
axes: {colour: [red, blue]}
placements: [64x64]
naming: "{sku}/{colour}"
"""
CSV = "sku,product\\nA1,Chair\\nB2,Lamp\\n"


def text(spec: str = SPEC, csv: str = CSV) -> str:
    return spec.replace("CSV", csv)


def issue_of(source: str) -> Issue:
    try:
        found = read_source(source)
    except InvalidCampaign as error:
        return error.issues[0]
    with pytest.raises(InvalidCampaign) as caught:
        expand(found.spec)
    return found.marks.locate(caught.value.issues[0])


def test_everything_is_combined_and_named() -> None:
    found = expand(read_source(text()).spec)
    assert found.arithmetic == "2 rows x 2 colour = 4"
    assert [one.name for one in found.assets] == [
        f"{sku}/{colour}.webp" for sku in ("A1", "B2") for colour in ("red", "blue")
    ]
    assert [one.prompt for one in found.assets] == ["Chair in red", "Chair in blue", "Lamp in red", "Lamp in blue"]
    assert len({one.seed for one in found.assets}) == 1
    assert found.assets[0].seed == expand(read_source(text()).spec).assets[0].seed  # follows from the name


def test_locales_have_their_own_words() -> None:
    spec = text(SPEC.replace("{sku}/", "{sku}/{locale}-")) + (
        'locales:\n  no: {values: {product: Stol}}\n  de:\n  en: {prompt: "A {colour} {product}, {{braces}}"}\n'
    )
    found = expand(
        read_source(
            spec.replace("product\\nA1,Chair", "product,product@de\\nA1,Chair,Stuhl").replace("B2,Lamp", "B2,Lamp,")
        ).spec
    )
    prompts = {(one.key, one.locale): one.prompt for one in found.assets if one.prompt.count("red")}
    assert prompts["A1", "no"] == "Stol in red"
    assert prompts["A1", "de"] == "Stuhl in red"
    assert prompts["B2", "de"] == "Lamp in red"
    assert prompts["A1", "en"] == "A red Chair, {braces}"


@pytest.mark.parametrize(
    "rows",
    [
        {"csv": '\ufeffsku;product\r\nA1;"Chair; ""big""\nand soft"\r\nB2;Lämpchen\r\n\r\n'},
        {"jsonl": '{"sku": "A1", "product": "Chair; \\"big\\"\\nand soft"}\n\n{"sku": "B2", "product": "Lämpchen"}\n'},
        {"inline": [{"sku": "A1", "product": 'Chair; "big"\nand soft'}, {"sku": "B2", "product": "Lämpchen"}]},
    ],
)
def test_rows_in_three_forms(rows: dict[str, Any]) -> None:
    source = read_source(text().replace('rows: {csv: "' + CSV + '"}', f"rows: {json.dumps(rows)}"))
    assert [one.prompt for one in expand(source.spec).assets[::2]] == [
        'Chair; "big"\nand soft in red',
        "Lämpchen in red",
    ]


def test_the_same_picture_twice_is_rendered_once() -> None:
    found = expand(read_source(text(csv=CSV + "C3,Lamp\\n")).spec)
    assert (len(found.assets), len(found.renders)) == (6, 4)
    assert found.assets[4].render == 2


@pytest.mark.parametrize(
    ("old", "new", "row", "field", "line", "why"),
    [
        ("product\\nA1,Chair", "produkt\\nA1,Chair", None, "product", 3, "no column 'product' for the placeholder"),
        ("{product}", "{prodct}", None, "prodct", 3, "did you mean 'product'?"),
        ("key: sku", "key: sk", None, None, 5, "the rows have no column 'sk'; did you mean 'sku'?"),
        ("B2,Lamp", "B2", 2, "product", 3, "fewer cells than columns: 1 for 2"),
        ("B2,Lamp", "B2,Lamp,x", 2, None, 3, "more cells than columns: 3 for 2"),
        ("B2,Lamp", "B2,", 2, "product", 3, "the cell is empty, and prompt needs it"),
        ("B2,Lamp", ",Lamp", 2, "sku", 3, "the cell is empty, and it names the row"),
        ("B2,Lamp", 'B2,\\"Lamp', 2, None, 3, "a quote may be open"),
        ("B2,Lamp", "B2,La\\amp", 2, None, 3, "control character"),
        ("B2,Lamp", "B2," + "x" * 5000, 2, None, 3, "at most 4,000"),
        ("B2,Lamp", "../B2,Lamp", 2, "sku", 3, "it has a path separator"),
        ("B2,Lamp", "..,Lamp", 2, None, 3, "climbs out of its folder"),
        ("B2,Lamp", "nul,Lamp", 2, None, 3, "the name of a device"),
        ("B2,Lamp", "B<2,Lamp", 2, "sku", 3, "no file name may hold"),
        ("B2,Lamp", "a1,Lamp", 2, None, 3, "is not unique: row 1 has it too"),
        ("{sku}/{colour}", "{sku}", 1, None, 2, "another picture of this row has it too"),
        ("sku,product", "sku,sku", 0, "sku", 1, "names 'sku' twice"),
        ("sku,product", "sku,", 0, None, 1, "no name for column 2"),
        (CSV, "", None, None, 4, "the CSV is empty"),
        (CSV, "sku,product\\n", None, None, 4, "a header and no rows"),
        ("{product} in", "{product in", None, None, 3, "stands alone"),
        ("{product} in", "{product|shout} in", None, None, 3, "no filter 'shout'"),
        ("colour: [red, blue]", "variant: [a]", None, None, 6, "filled in by the campaign itself"),
        ("placements: [64x64]", "placements: [9x9]", None, None, 7, "cannot render 9x9"),
        ("placements: [64x64]", "placements: [64x64, 64x64]", None, None, 7, "two placements are called"),
        ("placements: [64x64]", "steps: 900", None, None, 7, "takes 1 to 50"),
        ("placements: [64x64]", "budget: 0", None, None, 7, "greater than 0"),
        ("placements: [64x64]", "variants: {seeds: [1, 1]}", None, None, 7, "a seed stands twice"),
        ("placements: [64x64]", "variantz: 3", None, None, 7, "did you mean 'variants'?"),
        ("placements: [64x64]", "draft: {scale: 1}", None, None, 7, "needs fewer steps or a scale"),
        ("placements: [64x64]", "name: two", None, None, 7, "stands twice"),
        ("placements: [64x64]", "placements: [64x64", None, None, 8, "expected ',' or ']'"),
        ("fluxfarm/flux-2-klein-small", "flux-9", None, None, 2, "no model 'flux-9'"),
        (
            "[red, blue]",
            str([str(n) for n in range(50_001)]),
            None,
            None,
            6,
            "2 rows x 50,001 colour = 100,002 pictures",
        ),
    ],
)
def test_each_mistake_has_its_place_and_reason(
    old: str, new: str, row: int | None, field: str | None, line: int, why: str
) -> None:
    source = text()
    assert old in source
    found = issue_of(source.replace(old, new, 1))
    assert why in found.message
    assert (found.row, found.field, found.line) == (row, field, line), found
    assert row is not None or found.column is not None


def test_a_billion_is_refused_before_anything_is_made() -> None:
    axes = "{" + ", ".join(f"a{index}: {list(range(10))}" for index in range(9)) + "}"
    found = issue_of(
        text(SPEC.replace("{colour: [red, blue]}", axes).replace(" in {colour}", "").replace("/{colour}", ""))
    )
    assert found.message.startswith("2 rows x 10 a0 x 10 a1")
    assert "= 2,000,000,000 pictures; a campaign has at most 100,000" in found.message


def test_one_bad_row_in_fifty_thousand() -> None:
    rows = [f"S{index},Thing {index}" for index in range(50_000)]
    rows[31_415] = "S31415,"
    csv = "sku,product\\n" + "\\n".join(rows)
    found = issue_of(
        text(SPEC.replace("{colour: [red, blue]}", "{}").replace(" in {colour}", "").replace("/{colour}", ""), csv)
    )
    assert (found.row, found.field, found.line) == (31_416, "product", 31_417)


@pytest.mark.parametrize("line", ["[1]", "{", '{"sku": ["A1"], "product": "x"}', '{"sku": "A1"}'])
def test_bad_lines_of_json(line: str) -> None:
    source = text().replace(
        'rows: {csv: "' + CSV + '"}', "rows: " + json.dumps({"jsonl": '{"sku":"A0","product":"p"}\n' + line})
    )
    found = issue_of(source)
    assert (found.row, found.line) == (2, 2)


def test_json_with_tabs_and_yaml_words() -> None:
    document = {"name": "sale", "model": "flux-2-klein-small", "prompt": "no"}
    assert read_source(json.dumps(document, indent="\t")).spec.prompt == "no"
    spec = read_source(
        "name: sale\nmodel: flux-2-klein-small\nprompt: p\nlocales: {no: }\ndefaults: {a: 2030-01-01, b: 012}"
    ).spec
    assert (list(spec.locales), spec.defaults) == (["no"], {"a": "2030-01-01", "b": "012"})


def test_every_preset_is_what_the_models_draw() -> None:
    for name, size in PRESETS.items():
        assert DEV.sizes.check(size, DEV.slug) == size, name
    assert PRESETS["instagram-story"] == PRESETS["story"]


def test_templates_and_slugs() -> None:
    assert Template.parse("{a|upper}{{{b}}}").render({"a": "x", "b": "y"}) == "X{y}"
    assert slug("Crème brûlée / 2 + Ää") == "creme-brulee-2-aa"


def test_the_schema_names_every_field() -> None:
    schema = published_schema()
    assert set(schema["properties"]) == set(Spec.model_fields)
    assert {"type": "integer"} in schema["properties"]["variants"]["anyOf"]


def test_a_campaign_on_disk(tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    path = tmp_path / "campaign.yaml"
    assert len(expand(load(path).spec).assets) == 12
    path.write_text(path.read_text() + 'references: ["{colour}.png", logo.png]\n')
    (tmp_path / "logo.png").write_bytes(b"x")
    with pytest.raises(InvalidCampaign) as caught:
        load(path)
    assert [(one.row, one.file) for one in caught.value.issues] == [
        (row, str(tmp_path / "products.csv")) for row in (1, 2, 3)
    ]
    assert "there is no picture" in caught.value.issues[0].message
    path.write_text(path.read_text().replace("products.csv", "missing.csv"))
    with pytest.raises(InvalidCampaign) as caught:
        load(path)
    assert (caught.value.issues[0].line, caught.value.issues[0].param) == (8, "rows")
    (tmp_path / "missing.csv").write_bytes("sku,product,colour\nA,Gr\xfcn,x\n".encode("latin-1"))
    with pytest.raises(InvalidCampaign, match="is not UTF-8"):
        load(path)


def test_formulas_are_texts_in_the_table_and_stay_in_the_tree() -> None:
    line = manifest.Line(
        file="a.png", row=1, key="=cmd()", locale="-1", placement="@x", variant=1, prompt="\t=1", seed=1, model="m",
        width=1, height=1, cost="0", sha256="0", uuid="u", url="h", verdict="+",
    )  # fmt: skip
    table = manifest.as_csv([line]).decode("utf-8-sig").splitlines()[1]
    assert table.startswith("a.png,1,'=cmd(),'-1,'@x,1,'\t=1,1,m")
    assert table.endswith(",'+")
    assert json.loads(manifest.as_json("c", [line]))["files"][0]["key"] == "=cmd()"


def test_the_archive_is_as_long_as_it_says_also_above_65_535_files() -> None:
    few = [Entry(f"ä/{n}.png", n, partial(bytes, n)) for n in range(3)]
    many = [Entry(f"{n}.png", 1, partial(bytes, 1)) for n in range(65_600)]
    for entries in ([], few, many):
        whole = b"".join(archive.stream(entries, datetime(2030, 1, 2, 3, 4, 6, tzinfo=UTC)))
        assert len(whole) == archive.length(entries)
        with zipfile.ZipFile(io.BytesIO(whole)) as read:
            assert read.namelist() == [entry.name for entry in entries]
            assert len(entries) > 3 or read.testzip() is None
            assert not entries or read.infolist()[0].date_time == (2030, 1, 2, 3, 4, 6)


def test_an_archive_above_4_gib_has_large_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_32", 1_000)
    entries = [Entry(f"{n}.png", 600, partial(bytes, 600)) for n in range(4)]
    whole = b"".join(archive.stream(entries, datetime(2030, 1, 1, tzinfo=UTC)))
    assert len(whole) == archive.length(entries)
    assert b"PK\x06\x06" in whole


def test_a_file_that_has_changed_breaks_the_archive_off() -> None:
    with pytest.raises(EntryChanged):
        list(archive.stream([Entry("a", 2, lambda: b"x")], datetime(2030, 1, 1, tzinfo=UTC)))
