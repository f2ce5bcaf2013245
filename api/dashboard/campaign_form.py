"""A campaign in fields instead of YAML: the form makes the same document that others write by hand."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any, Final

import yaml
from starlette.datastructures import FormData

from fluxfarm.campaigns.naming import folded, name_fault
from fluxfarm.campaigns.rows import LINES, Issues, read_rows, rows_in
from fluxfarm.campaigns.spec import Rows
from fluxfarm.campaigns.templates import slug
from fluxfarm.catalog import KLEIN_SMALL

DRAFT_SCALE: Final = 0.5  #: of each side: a quarter of the pixels
MOST_KEY: Final = 80  #: bytes that a row may put into the name of a file
MOST_COLUMN: Final = 200  #: characters that the name of a key may have
PROMPT: Final = "a large {colour} {product} in the centre on a {background} background"


@dataclass(slots=True, kw_only=True)
class Fields:
    """The form, as it was typed."""

    name: str = "first-campaign"
    model: str = KLEIN_SMALL.slug
    prompt: str = PROMPT
    placements: tuple[str, ...] = ()  #: presets that are ticked
    sizes: str = "128x128, 128x224"  #: others, apart by commas
    variants: str = "1"
    budget: str = ""  #: USD
    drafts: bool = False
    review: bool = False

    @classmethod
    def of(cls, form: FormData) -> Fields:
        """What a browser sent; a field that it left out is empty."""
        typed: dict[str, Any] = {one.name: _text(form, one.name) for one in fields(cls)}
        ticked = [one for one in form.getlist("placements") if isinstance(one, str)]
        return cls(**typed | {"placements": tuple(ticked), "drafts": "drafts" in form, "review": "review" in form})

    def document(self, rows_name: str, rows: str, pictures: list[str]) -> str:
        """The specification as YAML; a wrong field is found when it is read, as in one that a person wrote."""
        sizes = [one.strip() for one in self.sizes.split(",")]
        said: dict[str, Any] = {
            "name": self.name,
            "model": self.model,
            "prompt": self.prompt,
            "rows": rows_name if rows.strip() else None,
            "key": key_of(rows_in(rows_name, rows)) if rows.strip() else None,
            "references": [one.replace("{", "{{").replace("}", "}}") for one in pictures],  # templates, too
            "placements": [*self.placements, *(one for one in sizes if one)],
            "variants": int(self.variants) if re.fullmatch("[0-9]{1,9}", self.variants) else self.variants,
            "budget": self.budget,
            "draft": {"scale": DRAFT_SCALE} if self.drafts else None,
            "review": self.review or None,
        }
        kept = {name: value for name, value in said.items() if value not in (None, "", [])}
        return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=100)


def _text(form: FormData, name: str) -> str:
    return str(form.get(name) or "").replace("\r\n", "\n").strip()


def name_of_rows(name: str, rows: str) -> str:
    """The file's name with the ending of what stands in the field now; JSON Lines begin with a brace."""
    is_lines = rows.lstrip("\ufeff \t\n").startswith("{")
    if name.lower().endswith(LINES) == is_lines:
        return name
    return f"{name.rpartition('.')[0] or 'rows'}{LINES[0] if is_lines else '.csv'}"


def key_of(rows: Rows) -> str | None:
    """The first column, if each row has a name of a file in it that no other row has."""
    table = read_rows(rows, Issues())
    column = table.columns[0] if table.columns else ""
    names = {folded(slug(row.values.get(column, ""))) for row in table.rows}
    fits = all(name and len(name.encode()) <= MOST_KEY and name_fault(name) is None for name in names)
    return column if fits and 0 < len(names) == len(table.rows) and 0 < len(column) <= MOST_COLUMN else None
