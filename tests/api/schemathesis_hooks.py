"""What schemathesis must be told of this API; it loads this file in a process of its own."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from uuid import uuid4

import schemathesis
from hypothesis import strategies

from api.idempotency import parse_key
from fluxfarm.errors import InvalidIdempotencyKey
from tests.api.samples import picture

KEY = "Idempotency-Key"

# A file is a picture: its one pixel would be too small, and that is no matter of the schema.
schemathesis.openapi.format("binary", strategies.just(picture()))


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Two things that are right by the schema, and refused on purpose, are not sent."""
    # A key that came before with another call.
    if case.headers and KEY in case.headers:
        with suppress(InvalidIdempotencyKey):
            parse_key([str(case.headers[KEY])])
            case.headers[KEY] = str(uuid4())
    # 7.0 where a whole number is asked for: nothing is guessed here.
    case.body = _whole(case.body)


def _whole(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _whole(child) for name, child in node.items()}
    if isinstance(node, list):
        return [_whole(child) for child in node]
    return int(node) if isinstance(node, float) and node.is_integer() else node
