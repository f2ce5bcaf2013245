"""Fields of a provider's own in the native ``promptObject``, told apart from names that nobody knows."""

from __future__ import annotations

from typing import Any, Final

from fluxfarm.errors import InvalidField
from fluxfarm.offers import EXTRAS

LONGEST: Final = 4_000  #: characters of a text
LARGEST: Final = 2**63  #: of a number


def split(body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The body without the fields that some provider calls its own, and these; whether anybody may take them is open.

    Raises:
        InvalidField: one of them is neither a text, a number nor a truth value.
    """
    asked = body.get("promptObject")
    found = {name: asked[name] for name in asked if name in EXTRAS} if isinstance(asked, dict) else {}
    if not isinstance(asked, dict) or not found:
        return body, {}
    for name, value in found.items():
        if not _is_plain(value):
            message = f"{name} is a provider's own: a text of at most {LONGEST:,} characters, a number or a switch."
            raise InvalidField(message, param=f"promptObject.{name}")
    return body | {"promptObject": {name: value for name, value in asked.items() if name not in found}}, found


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST and all(one.isprintable() or one in "\n\t" for one in value)
    return isinstance(value, int | float) and -LARGEST < value < LARGEST


def schema() -> dict[str, Any]:
    """What the API's description says of each of them."""
    told = "A provider's own, see `extras` of `GET /v1/models/{id}`; refused where nobody who may render knows it."
    kinds = [{"type": "string", "maxLength": LONGEST}, {"type": "number"}, {"type": "boolean"}]
    return {name: {"description": told, "anyOf": kinds} for name in sorted(EXTRAS)}
