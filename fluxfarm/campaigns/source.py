"""A specification as text, YAML or JSON, read so that each mistake can be shown at its line and column.

Of YAML 1.1's guesses only those of JSON are left: ``no`` is a text (and Norway), and so is ``2030-01-01``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

import yaml
from pydantic import ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from fluxfarm.campaigns.spec import Draft, Locale, Placement, Rows, Spec, Variants
from fluxfarm.errors import InvalidCampaign, Issue

MAX_NODES: Final = 1_000_000  #: values in one file, aliases counted as often as they stand
SHOWN: Final = 20  #: issues that an error carries
_INT: Final = re.compile(r"-?(?:0|[1-9]\d{0,30})")
_FLOAT: Final = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?")
_WORDS: Final = {"null": None, "~": None, "": None, "true": True, "false": False}
_NAMES: Final = {
    "": tuple(Spec.model_fields),
    "draft": tuple(Draft.model_fields),
    "locales": tuple(Locale.model_fields),
    "placements": tuple(Placement.model_fields),
    "rows": tuple(Rows.model_fields),
    "variants": tuple(Variants.model_fields),
}


@dataclass(frozen=True, slots=True)
class Marks:
    """Where each part of the specification stands in its text: dotted path to line and column, from 1."""

    places: dict[str, tuple[int, int]]

    def find(self, path: str | None) -> tuple[int, int] | None:
        """The place of a path, or of the nearest part around it."""
        while path:
            if path in self.places:
                return self.places[path]
            path = path.rpartition(".")[0]
        return self.places.get("")

    def locate(self, issue: Issue) -> Issue:
        """The issue with its line and column; one that is in the rows keeps its own."""
        found = None if issue.is_in_rows or issue.line is not None else self.find(issue.param)
        return issue if found is None else issue.at(*found)


@dataclass(frozen=True, slots=True)
class Source:
    """What was read."""

    spec: Spec
    marks: Marks


def invalid(issues: Sequence[Issue], total: int | None = None) -> InvalidCampaign:
    """The error that tells of these issues; its message is the first one."""
    count = len(issues) if total is None else total
    more = f" ({count - 1} more)" if count > 1 else ""
    return InvalidCampaign(f"{issues[0]}{more}", param=issues[0].param, issues=issues[:SHOWN], total=count)


def read_source(text: str) -> Source:
    """The specification in a YAML or JSON text.

    Raises:
        InvalidCampaign: with the line and column of each mistake.
    """
    document, marks = parse(text)
    try:
        return Source(check(document), marks)
    except InvalidCampaign as error:
        raise invalid([marks.locate(issue) for issue in error.issues], error.total) from None


def parse(text: str) -> tuple[Any, Marks]:
    """Texts, numbers, lists and mappings, and where each stands.

    Raises:
        InvalidCampaign: neither YAML nor JSON, a name twice, a tag, or too much of it.
    """
    plain = text.removeprefix("\ufeff")
    if plain.lstrip()[:1] in ("{", "["):
        plain = plain.replace("\t", " ")  # JSON may indent by tabs, YAML may not
    try:
        node = yaml.compose(plain, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        issue = Issue(message=f"{error.problem or error.context or 'this is no YAML'}.")
        raise invalid([issue if mark is None else issue.at(mark.line + 1, mark.column + 1)]) from None
    except (yaml.YAMLError, RecursionError):
        raise invalid([Issue(message="this is no YAML: a character that no text may hold, or too deep.")]) from None
    reader = _Reader()
    return reader.read(node, ""), Marks(reader.places)


class _Reader:
    def __init__(self) -> None:
        self.places: dict[str, tuple[int, int]] = {}
        self._count = 0

    def read(self, node: Node | None, path: str) -> Any:
        if node is None:
            return None
        here = self.places.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        self._count += 1
        if self._count > MAX_NODES or path.count(".") > 20:  # noqa: PLR2004 - far deeper than any specification
            raise invalid([Issue(message="there is too much in this file, or it is nested too deep.").at(*here)])
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.read(item, f"{path}.{index}" if path else str(index)) for index, item in enumerate(node.value)]
        assert isinstance(node, ScalarNode)
        return _scalar(node)

    def _mapping(self, node: MappingNode, path: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            place = (key.start_mark.line + 1, key.start_mark.column + 1)
            if not isinstance(key, ScalarNode):
                raise invalid([Issue(message="a name must be a text.").at(*place)])
            name = str(key.value)
            inner = f"{path}.{name}" if path else name
            if name in found:
                raise invalid([Issue(message=f"{name!r} stands twice here.", param=inner).at(*place)])
            found[name] = self.read(value, inner)
        return found


def _scalar(node: ScalarNode) -> Any:
    text = str(node.value)
    if node.style:  # quoted or a block: a text, whatever it looks like
        return text
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def check(document: Any) -> Spec:
    """The specification in a document.

    Raises:
        InvalidCampaign: with the dotted path of each mistake.
    """
    if not isinstance(document, dict):
        raise invalid([Issue(message="a campaign is a mapping with name, model and prompt.")])
    try:
        return Spec.model_validate(document)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
    raise invalid([_issue(one["type"], one["loc"], one["msg"]) for one in found[:SHOWN]], len(found)) from None


def _issue(kind: str, location: Sequence[int | str], message: str) -> Issue:
    path = [str(part) for part in location if part != "[key]"]
    if len(path) > 1 and path[-1] in {"str", "int", "float", "bool"}:  # the member of a union
        path.pop()
    where = ".".join(path)
    if kind == "extra_forbidden":
        return Issue(message=f"{path[-1]!r} is no field here{_nearest(path)}", param=where)
    if kind == "missing":
        return Issue(message=f"{path[-1]!r} is missing.", param=where)
    plain = message.removeprefix("Input ").removeprefix("Value error, ")
    return Issue(message=f"{plain[:1].lower()}{plain[1:]}.", param=where or None)


def _nearest(path: Sequence[str]) -> str:
    known = _NAMES[""] if len(path) == 1 else _NAMES.get(path[0], ())
    found = get_close_matches(path[-1][:60], known, n=1)
    return f"; did you mean {found[0]!r}?" if found else "."


def as_json(spec: Spec) -> dict[str, Any]:
    """The specification as the API takes it: only what was said."""
    document: dict[str, Any] = json.loads(spec.model_dump_json(exclude_unset=True))
    return document


def with_rows(spec: Spec, rows: Rows) -> Spec:
    """The same with the content of a file in place of its name."""
    return spec.model_copy(update={"rows": rows})


def published_schema() -> dict[str, Any]:
    """The JSON Schema that editors take."""
    schema = Spec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Fluxfarm campaign"}
