"""The tree of errors is the one that its docstring draws."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from fluxfarm import errors
from fluxfarm.errors import BadRequest, FluxfarmError, RenderError
from fluxfarm.problems import tree

LINE = re.compile(r"(?P<branch>[│ ]*[├└]── )(?P<name>\w+) *(?P<status>\d{3})? *(?P<code>[a-z_]+)?(?:  +(?P<note>.*))?$")


@dataclass(frozen=True)
class Drawn:
    name: str
    parent: str
    status: int | None
    code: str | None
    note: str


def drawn() -> Iterator[Drawn]:
    above = ["FluxfarmError"]
    for line in (errors.__doc__ or "").splitlines():
        found = LINE.match(line)
        if found is None:
            continue
        depth = len(found["branch"]) // 4
        del above[depth:]
        status = int(found["status"]) if found["status"] else None
        yield Drawn(found["name"], above[-1], status, found["code"], line)
        above.append(found["name"])


TREE = list(drawn())
CLASSES = list(tree())


def test_the_drawing_has_every_class_in_its_place_and_no_other() -> None:
    assert {(one.name, one.parent) for one in TREE} == {(kind.__name__, kind.__bases__[0].__name__) for kind in CLASSES}
    assert len(TREE) == len(CLASSES)


@pytest.mark.parametrize("one", TREE, ids=lambda one: one.name)
def test_status_code_and_retry_are_as_drawn(one: Drawn) -> None:
    kind: type[FluxfarmError] = getattr(errors, one.name)
    if issubclass(kind, RenderError):
        assert one.status is None
        if kind is not RenderError:
            assert ("(try again)" in one.note) == kind.retryable
            assert ("(final" in one.note) == (not kind.retryable)
    else:
        assert one.status == kind.status
    if kind not in (RenderError, BadRequest):  # these two are drawn with words instead of a code
        assert one.code == kind.code
    if "try again" in one.note:
        assert kind.retryable


def test_codes_are_unique_words() -> None:
    counts = Counter(kind.code for kind in CLASSES)
    assert [code for code, count in counts.items() if count > 1] == []
    assert all(re.fullmatch("[a-z][a-z_]+", code) for code in counts)


def test_every_class_says_what_it_is_and_every_unavailable_can_be_tried_again() -> None:
    for kind in CLASSES:
        assert kind.__doc__
        assert kind.status >= 400
        assert kind.retryable or not issubclass(kind, errors.Unavailable)


def test_an_error_carries_its_sentence_its_field_and_its_pause() -> None:
    error = errors.TooManyRequests("Slow down.", param="prompt", retry_after=2.5)
    assert (str(error), error.message, error.param, error.retry_after) == ("Slow down.", "Slow down.", "prompt", 2.5)
