"""The pictures of one row: each with its prompt, its seed, its size and its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final

from fluxfarm.campaigns.layout import OWN, Language, Layout
from fluxfarm.campaigns.naming import NameFault, file_name, folded
from fluxfarm.campaigns.placements import Place
from fluxfarm.campaigns.rows import Issues, Row
from fluxfarm.campaigns.spec import Spec
from fluxfarm.errors import InvalidPrompt, Issue
from fluxfarm.request import check_prompt

PLAIN: Final = 2_000  #: characters below which printable ASCII needs no closer look
_PER_PICTURE: Final = {"placement", "width", "height", "variant", "seed"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file to deliver; ``render`` is the number of the first asset that is the same picture, often its own."""

    n: int
    render: int
    name: str
    row: int
    key: str
    locale: str
    place: Place
    variant: int
    seed: int
    prompt: str
    references: tuple[str, ...]
    values: Mapping[str, str]  #: what its name took, without what differs from picture to picture


def of_picture(values: Mapping[str, str], place: Place, variant: int, seed: int) -> dict[str, str]:
    """The values with those that the campaign fills in for each picture."""
    size = place.size
    own = {"placement": place.name, "width": str(size.width), "height": str(size.height)}
    return {**values, **own, "variant": str(variant), "seed": str(seed)}


class Maker:
    """Makes the assets of one row after the other; remembers names and pictures, to find clashes and duplicates."""

    def __init__(self, spec: Spec, layout: Layout, rows: int, folder: str, issues: Issues) -> None:
        """``folder`` is put before each name; ``rows`` is how many there are."""
        self._spec, self._layout, self._folder, self._issues = spec, layout, folder, issues
        self._digits = len(str(rows))
        self._names: dict[str, int] = {}
        self._renders: dict[tuple[object, ...], int] = {}
        self._count = 0
        self._kept = [name for name in layout.naming.names if name not in _PER_PICTURE]
        self._needed = {
            language.name: [
                (param, name)
                for param, template in layout.templates()
                if param in (language.param, "naming") or param.startswith("references.")
                for name in template.names
                if name not in OWN and name not in layout.defaults
            ]
            for language in layout.languages
        }

    def row(self, row: Row) -> Iterator[Asset]:
        """The assets of a row; after a mistake in it the rest of the row is left out."""
        for language in self._layout.languages:
            values = self._values(row, language)
            for combination in product(*self._layout.axes.values()):
                made = self._combination(row, language, values | dict(zip(self._layout.axes, combination, strict=True)))
                if made is None:
                    return
                yield from made

    def _combination(self, row: Row, language: Language, values: dict[str, str]) -> list[Asset] | None:
        if not self._is_complete(row, language, values):
            return None
        layout = self._layout
        references = tuple(filter(None, (one.render(values).strip() for one in layout.references)))
        alike = _PER_PICTURE.isdisjoint(language.prompt.names)
        prompt = self._prompt(row, language, values) if alike else ""
        made = []
        for place in layout.places:
            for variant, seed in enumerate(layout.seeds, 1):
                full = of_picture(values, place, variant, seed)
                text = prompt if alike else self._prompt(row, language, full)
                name = self._name(row, full)
                if text is None or name is None:
                    return None
                made.append(self._asset(row, full, place, (variant, seed), name, text, references))
        return made

    def _values(self, row: Row, language: Language) -> dict[str, str]:
        values = dict(self._layout.defaults)
        values.update((name, text) for name, text in row.values.items() if text or name not in values)
        if language.name:
            ending = f"@{language.name}"
            own = [(name, text) for name, text in row.values.items() if text and name.endswith(ending)]
            values.update((name.removesuffix(ending), text) for name, text in own)
            values.update(language.values)
        number = str(row.number).zfill(self._digits)
        values["row"] = number
        values["key"] = row.values.get(self._spec.key or "", "") or (number if row.number else self._spec.name)
        values["locale"] = language.name
        return values

    def _is_complete(self, row: Row, language: Language, values: Mapping[str, str]) -> bool:
        if self._spec.key is not None and row.number and not row.values.get(self._spec.key):
            self._fault(row, "the cell is empty, and it names the row.", "key", self._spec.key)
            return False
        for param, name in self._needed[language.name]:
            if not values.get(name):
                why = "the cell is empty" if name in values else f"the row has no {name!r}"
                self._fault(row, f"{why}, and {param} needs it; fill it in, or name it in defaults.", param, name)
                return False
        return True

    def _prompt(self, row: Row, language: Language, values: Mapping[str, str]) -> str | None:
        text = language.prompt.render(values).strip()
        if 0 < len(text) < PLAIN and text.isascii() and text.isprintable():
            return text
        try:
            return check_prompt(text)
        except InvalidPrompt as error:
            self._fault(row, error.message, language.param, None)
            return None

    def _name(self, row: Row, values: Mapping[str, str]) -> str | None:
        try:
            name = file_name(self._layout.naming, values, self._layout.extension)
        except NameFault as error:
            self._fault(row, f"{error}.", "naming", error.field)
            return None
        first = self._names.setdefault(folded(name), row.number)
        if first != row.number or len(self._names) != self._count + 1:
            other = f"row {first} has it too" if first != row.number else "another picture of this row has it too"
            message = f"the file name {name!r} is not unique: {other}; put more placeholders into naming."
            self._fault(row, message, "naming", None)
            return None
        return self._folder + name

    def _asset(
        self,
        row: Row,
        values: Mapping[str, str],
        place: Place,
        variant: tuple[int, int],
        name: str,
        prompt: str,
        references: tuple[str, ...],
    ) -> Asset:
        n = self._count
        self._count += 1
        number, seed = variant
        render = self._renders.setdefault((prompt, place.size, seed, references), n)
        kept = {one: values[one] for one in self._kept}
        return Asset(
            n, render, name, row.number, values["key"], values["locale"], place, number, seed, prompt, references, kept
        )

    def _fault(self, row: Row, message: str, param: str, field: str | None) -> None:
        self._issues.add(
            Issue(
                message=message,
                param=param,
                row=row.number or None,
                field=field,
                line=row.line if row.number else None,
            )
        )
