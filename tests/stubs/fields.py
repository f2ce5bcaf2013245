"""What a provider's schema says of its fields, as data: a stub refuses what the real one refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], bool]


def integer(low: int, high: int) -> Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def number(low: float, high: float) -> Check:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def one_of(*names: Any) -> Check:
    return lambda value: value in names


def texts(most: int) -> Check:
    return lambda value: isinstance(value, list) and 1 <= len(value) <= most and all(map(text, value))


def text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def flag(value: Any) -> bool:
    return isinstance(value, bool)


def wrong(body: Mapping[str, Any], fields: Mapping[str, Check], required: tuple[str, ...] = ("prompt",)) -> list[str]:
    """The names at fault: missing, unknown or out of range."""
    missing = [name for name in required if name not in body]
    return missing + [name for name, value in body.items() if name not in fields or not fields[name](value)]
