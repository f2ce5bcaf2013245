"""Who calls: an API key in ``Authorization: Bearer`` or ``API-KEY``, and what it may do."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from fluxfarm.errors import Forbidden, Unauthorized
from fluxfarm.scopes import Scope
from storage.keys import is_well_formed
from storage.repository.tenants import UNKNOWN_KEY, Caller

#: where a call is not "GET reads, the rest renders"; the first line that fits counts
NEEDED: Final = (
    ("GET", "/v1/webhooks/{webhook}/secret", Scope.RENDER),
    ("", "/v1/keys", Scope.ADMIN),
    ("", "/v1/tenants", Scope.OPERATOR),
    ("GET", "", Scope.READ),
    ("", "/v1/campaigns", Scope.CAMPAIGNS),
    ("", "", Scope.RENDER),
)

_bearer: Final = HTTPBearer(auto_error=False, description="`Authorization: Bearer ff_live_…`", scheme_name="bearer")
_header: Final = APIKeyHeader(name="API-KEY", auto_error=False, description="The same key", scheme_name="apiKey")


async def read_secret(
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    header: Annotated[str | None, Security(_header)],
) -> str:
    """The key's text, checked by its form alone: before a body is read, and without the database.

    Raises:
        Unauthorized: no key, or one that cannot be ours.
    """
    secret = bearer.credentials if bearer is not None else header
    if secret is None or not is_well_formed(secret):
        raise Unauthorized(UNKNOWN_KEY)
    return secret


Secret = Annotated[str, Depends(read_secret)]


def needed(method: str, path: str) -> Scope:
    """The scope that a call needs, as the description of the API tells it; each route checks it with ``allowed``."""
    return next(scope for verb, start, scope in NEEDED if verb in ("", method) and path.startswith(start))


def allowed(key: Caller, scope: Scope) -> Caller:
    """The key, if it has the scope.

    Raises:
        Forbidden: it has not.
    """
    if scope not in key.scopes:
        raise Forbidden(f"The key lacks the scope '{scope}'; it has: {', '.join(key.scopes) or 'none'}.")
    return key
