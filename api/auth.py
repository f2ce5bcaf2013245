"""Who calls: an API key in ``Authorization`` (Bearer, or fal's Key) or ``API-KEY``, and what it may do."""

from __future__ import annotations

from typing import Annotated, Final
from uuid import UUID

from fastapi import Request, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase

from api.farm import Farm
from fluxfarm.errors import Forbidden, Unauthorized
from fluxfarm.scopes import Scope
from storage.keys import digest, is_well_formed
from storage.repository import tenants
from storage.repository.tenants import UNKNOWN_KEY, Caller

#: where a call is not "GET reads, the rest renders"; the first line that fits counts
NEEDED: Final = (
    ("GET", "/v1/webhooks/{webhook}/secret", Scope.RENDER),
    ("POST", "/v1/verify", Scope.READ),
    ("GET", "/replicate/v1/webhooks/default/secret", Scope.RENDER),
    ("", "/v1/keys", Scope.ADMIN),
    ("", "/v1/tenants", Scope.OPERATOR),
    ("PUT", "/v1/providers", Scope.ADMIN),
    ("DELETE", "/v1/providers", Scope.ADMIN),
    ("POST", "/v1/providers", Scope.OPERATOR),
    ("GET", "", Scope.READ),
    ("", "/v1/campaigns", Scope.CAMPAIGNS),
    ("", "", Scope.RENDER),
)

SCHEMES: Final = (
    "bearer",
    "key",
    "token",
)  #: fal says Key, Replicate's older clients Token
API_KEY: Final = "API-KEY"  #: the header that 1min.ai's callers use


class _KeyOfCaller(SecurityBase):
    """One dependency for all ways to send a key: each more would be solved anew on every call."""

    def __init__(self) -> None:
        self.model = HTTPBearerModel(description="`Authorization: Bearer ff_live_…`")
        self.scheme_name = "bearer"

    async def __call__(self, request: Request) -> str:
        """The key's text, checked by its form and counted before a body is read; whose it is, the route asks.

        Raises:
            Unauthorized: no key, or one that cannot be ours.
            TooManyRequests: it has called too often, or has too many calls open.
        """
        scheme, _, word = request.headers.get("authorization", "").partition(" ")
        secret = word.strip() if scheme.lower() in SCHEMES else request.headers.get(API_KEY)
        if secret is None or not is_well_formed(secret):
            raise Unauthorized(UNKNOWN_KEY)
        await count(request, secret)
        return secret


async def count(request: Request, secret: str) -> None:
    """One call of the key, which is open until ``api.replies`` closes it.

    Raises:
        TooManyRequests: it has called too often, or has too many calls open.
    """
    farm: Farm = request.app.state.farm
    hashed = digest(secret)
    standing = request.state.standing = await farm.rates.spend(hashed)
    if standing is not None:
        standing.check()
    request.state.open_call = farm.open_calls.enter(hashed)


key_of_caller: Final = _KeyOfCaller()
Secret = Annotated[str, Security(key_of_caller)]


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


def note_use(farm: Farm, key: Caller) -> None:
    """Keep the time of the key's last use; worth it once a minute (``Caller.use_is_due``)."""
    with farm.database.transaction() as session:
        tenants.note_use(session, key.id)


async def check_caller(farm: Farm, secret: str, scope: Scope = Scope.RENDER) -> None:
    """Before a large body is read: a stranger's 20 MB are not even taken.

    Raises:
        Unauthorized: the key is not one of ours any more.
        Forbidden: it lacks the scope.
    """
    await run_in_threadpool(owner, farm, secret, scope)


def owner(farm: Farm, secret: str, scope: Scope = Scope.RENDER) -> UUID:
    """The caller's tenant, in a transaction of its own.

    Raises:
        Unauthorized, Forbidden: as above.
    """
    with farm.database.transaction() as session:
        return allowed(tenants.authenticate(session, secret), scope).tenant_id
