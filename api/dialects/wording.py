"""How a dialect words what went wrong: one pure function from an error to a reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fluxfarm.errors import FluxfarmError


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReply:
    """The reply to an error; ``Retry-After``, ``WWW-Authenticate`` and ``x-request-id`` are added for every dialect."""

    status: int
    content: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"


Wording = Callable[[FluxfarmError, str], ErrorReply]  #: the error and the request id
