"""Prompt templates and naming patterns: ``{placeholders}``, ``{{`` and ``}}`` for braces, and a few filters.

Not ``str.format``: that would let a template reach into objects (``{a.__class__}``) and make texts of any length
(``{a:1000000}``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

_BETWEEN: Final = re.compile(r"[\W_]+")
_TOKEN: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def slug(text: str) -> str:
    """Lower-case letters, digits and hyphens, as they stand in a URL; letters without accents."""
    if not text.isascii():
        text = "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))
    return _BETWEEN.sub("-", text.lower()).strip("-")


FILTERS: Final[Mapping[str, Callable[[str], str]]] = {"lower": str.lower, "upper": str.upper, "slug": slug}


class TemplateError(ValueError):
    """The text is no template; ``position`` is the character at fault, from 1."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(f"{message} (character {position})")
        self.position = position


@dataclass(frozen=True, slots=True)
class _Hole:
    name: str
    change: Callable[[str], str] | None


@dataclass(frozen=True, slots=True)
class Template:
    """A text with holes."""

    parts: tuple[str | _Hole, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Read a template.

        Raises:
            TemplateError: a brace without its partner, an empty placeholder, or an unknown filter.
        """
        parts: list[str | _Hole] = []
        end = 0
        for found in _TOKEN.finditer(text):
            parts.append(text[end : found.start()])
            end = found.end()
            if found[0] in ("{{", "}}"):
                parts.append(found[0][0])
            elif found[1] is None:
                message = f"{found[0]!r} stands alone; write {found[0] * 2!r} for the character itself"
                raise TemplateError(message, found.start() + 1)
            else:
                parts.append(_hole(found[1], found.start() + 1))
        parts.append(text[end:])
        return cls(tuple(part for part in parts if part != ""))

    @property
    def names(self) -> tuple[str, ...]:
        """The placeholders, in their order, each once."""
        return tuple(dict.fromkeys(part.name for part in self.parts if isinstance(part, _Hole)))

    def pieces(self, values: Mapping[str, str]) -> list[tuple[str, str | None]]:
        """The text in parts, each with the placeholder that it came from."""
        return [(part, None) if isinstance(part, str) else (_filled(part, values), part.name) for part in self.parts]

    def render(self, values: Mapping[str, str]) -> str:
        """The text; every name must be among the values."""
        return "".join(part if isinstance(part, str) else _filled(part, values) for part in self.parts)


def _hole(inner: str, position: int) -> _Hole:
    name, _, word = (part.strip() for part in inner.partition("|"))
    if not name:
        raise TemplateError("the placeholder has no name; write '{{}}' for two braces", position)
    if word and word not in FILTERS:
        raise TemplateError(f"there is no filter {word[:40]!r}; there are {', '.join(FILTERS)}", position)
    return _Hole(name, FILTERS.get(word))


def _filled(hole: _Hole, values: Mapping[str, str]) -> str:
    value = values[hole.name]
    return value if hole.change is None else hole.change(value)
