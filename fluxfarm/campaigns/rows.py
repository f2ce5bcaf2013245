"""The data of a campaign: CSV as spreadsheets write it, JSON Lines, or objects of the specification itself."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fluxfarm.campaigns.spec import Rows
from fluxfarm.errors import Issue

DELIMITERS: Final = ",;\t"
MAX_CELL: Final = 16_000  #: characters
COLUMNS: Final = 200
LINES: Final = (".jsonl", ".ndjson")  #: endings of JSON Lines
SHOWN: Final = 100  #: issues that are kept; all are counted


@dataclass(frozen=True, slots=True)
class Row:
    """One row; ``number`` counts from 1 without the header, ``line`` is where it ends in the file."""

    number: int
    line: int | None
    values: Mapping[str, str]


class Issues:
    """What is wrong so far: the first hundred, and how many in all."""

    def __init__(self) -> None:
        self.kept: list[Issue] = []
        self.total = 0

    def add(self, issue: Issue) -> None:
        """Note one."""
        self.total += 1
        if len(self.kept) < SHOWN:
            self.kept.append(issue)

    def __bool__(self) -> bool:
        return self.total > 0


@dataclass(frozen=True, slots=True)
class Table:
    """All rows; ``columns`` is None when each row has names of its own."""

    rows: Sequence[Row]
    columns: tuple[str, ...] | None


def cell_text(value: Any) -> str | None:
    """A value as it stands in a prompt; None: it is no single value."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def rows_in(name: str, text: str) -> Rows:
    """The rows of a file: JSON Lines by its ending, else CSV."""
    return Rows(jsonl=text) if name.lower().endswith(LINES) else Rows(csv=text)


def read_rows(rows: Rows | None, issues: Issues) -> Table:
    """The rows, without those that cannot be read, of which ``issues`` tell."""
    if rows is None:
        return Table((Row(0, None, {}),), ())
    if rows.csv is not None:
        return _read_csv(rows.csv, issues)
    if rows.jsonl is not None:
        return _table(_json_lines(rows.jsonl, issues), issues)
    if rows.inline is not None:
        return _table(((number, None, one) for number, one in enumerate(rows.inline, 1)), issues)
    issues.add(Issue(message="the farm reads no files; send the rows as csv, jsonl or a list.", param="rows"))
    return Table((), ())


def _read_csv(text: str, issues: Issues) -> Table:
    plain = text.removeprefix("\ufeff")
    head = plain.lstrip("\r\n").partition("\n")[0]
    delimiter = max(DELIMITERS, key=head.count)
    # newline="": line breaks inside quotes are the cell's own
    reader = csv.reader(io.StringIO(plain, newline=""), delimiter=delimiter, strict=True)
    found: list[Row] = []
    columns: tuple[str, ...] = ()
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = _header(cells, reader.line_num, issues)
                if not columns:
                    break
                continue
            number = len(found) + 1
            found.append(_row(number, reader.line_num, cells, columns, issues))
    except csv.Error as error:
        message = f"the CSV is broken here ({error}); a quote may be open."
        issues.add(Issue(message=message, param="rows", row=len(found) + 1, line=reader.line_num))
    if not columns and not issues:
        issues.add(Issue(message="the CSV is empty; its first line must name the columns.", param="rows"))
    elif not found and not issues:
        issues.add(Issue(message="the CSV has a header and no rows.", param="rows"))
    return Table(found, columns)


def _header(cells: Sequence[str], line: int, issues: Issues) -> tuple[str, ...]:
    names = tuple(cell.strip() for cell in cells)
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        message = f"the header names {twice[0]!r} twice."
        issues.add(Issue(message=message, param="rows", row=0, field=twice[0], line=line))
        return ()
    if "" in names:
        message = f"the header has no name for column {names.index('') + 1}."
        issues.add(Issue(message=message, param="rows", row=0, line=line, column=names.index("") + 1))
        return ()
    if len(names) > COLUMNS:
        issues.add(Issue(message=f"at most {COLUMNS} columns are read.", param="rows", row=0, line=line))
        return ()
    return names


def _row(number: int, line: int, cells: Sequence[str], columns: Sequence[str], issues: Issues) -> Row:
    if len(cells) != len(columns):
        what = "more" if len(cells) > len(columns) else "fewer"
        message = f"{what} cells than columns: {len(cells)} for {len(columns)}."
        field = columns[len(cells)] if len(cells) < len(columns) else None
        issues.add(Issue(message=message, param="rows", row=number, line=line, field=field))
    return Row(number, line, dict(zip(columns, (cell.strip() for cell in cells), strict=False)))


def _json_lines(text: str, issues: Issues) -> Iterator[tuple[int, int | None, Any]]:
    number = 0
    for line, content in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if not content.strip():
            continue
        number += 1
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            why = f": {error.msg}" if isinstance(error, json.JSONDecodeError) else ""
            column = error.colno if isinstance(error, json.JSONDecodeError) else None
            message = f"the line is no JSON{why}."
            issues.add(Issue(message=message, param="rows", row=number, line=line, column=column))
            continue
        yield number, line, value


def _table(found: Iterable[tuple[int, int | None, Any]], issues: Issues) -> Table:
    rows = []
    for number, line, one in found:
        if not isinstance(one, dict):
            issues.add(Issue(message="a row is an object.", param="rows", row=number, line=line))
            continue
        values: dict[str, str] = {}
        for name, value in one.items():
            text = cell_text(value)
            if text is None:
                message = "the value is a list or an object; a cell is a text or a number."
                issues.add(Issue(message=message, param="rows", row=number, line=line, field=str(name)[:60]))
            else:
                values[str(name)] = text.strip()
        rows.append(Row(number, line, values))
    if not rows and not issues:
        issues.add(Issue(message="there are no rows.", param="rows"))
    return Table(rows, None)
