"""The list that goes with the files: each with the row, the prompt, the seed and the cost that it came from."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One file."""

    file: str
    row: int
    key: str
    locale: str
    placement: str
    variant: int
    prompt: str
    seed: int
    model: str
    width: int
    height: int
    cost: str  #: USD
    sha256: str
    uuid: str  #: of the job
    url: str  #: never dies; needs a key
    verdict: str


COLUMNS: Final = tuple(field.name for field in fields(Line))


def harmless(text: str) -> str:
    """A cell that no spreadsheet takes for a formula (OWASP, CSV injection): an apostrophe makes it a text."""
    return f"'{text}" if text.startswith(FORMULA) else text


def as_csv(lines: Iterable[Line]) -> bytes:
    """``manifest.csv``: UTF-8 with a mark, so that Excel reads it as such."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for line in lines:
        cells = (getattr(line, name) for name in COLUMNS)
        writer.writerow([harmless(cell) if isinstance(cell, str) else cell for cell in cells])
    return b"\xef\xbb\xbf" + out.getvalue().encode()


def as_json(campaign: str, lines: Iterable[Line]) -> bytes:
    """``manifest.json``: the same, with every text as it was."""
    document: dict[str, Any] = {"campaign": campaign, "files": [asdict(line) for line in lines]}
    return json.dumps(document, ensure_ascii=False, indent=1).encode()
