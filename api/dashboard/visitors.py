"""Who looks at a page: the holder of a session, whose key is asked for its scopes on every page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from api.auth import allowed, count
from api.creation import Creation
from api.dashboard import sessions
from api.farm import Farm, FarmPart
from fluxfarm.errors import Unauthorized
from fluxfarm.scopes import Scope
from storage.database import Session
from storage.repository import policies, tenants
from storage.repository.tenants import Caller

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Looking:
    """A visitor within a transaction."""

    session: Session
    caller: Caller
    tenant: str

    @property
    def is_operator(self) -> bool:
        """Whether the farm as a whole may be shown."""
        return Scope.OPERATOR in self.caller.scopes


@dataclass(frozen=True, slots=True)
class Visitor:
    """The holder of a session."""

    farm: Farm
    secret: str
    has_written: bool  #: some moments ago

    def read(self, ask: Callable[[Session], Answer]) -> Answer:
        """What a list shows: from the replica, unless the visitor must see there what he has just done.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        return self.farm.replica.read(ask, fresh=self.has_written)

    def creation(self, request: Request) -> Creation:
        """A call that makes something, as the native routes take it."""
        return Creation(self.farm, self.secret, request, None)

    @contextmanager
    def looking(self, scope: Scope = Scope.READ) -> Iterator[Looking]:
        """One transaction of somebody whose key has the scope.

        Raises:
            Unauthorized: the key was revoked or has expired meanwhile.
            Forbidden: it lacks the scope.
        """
        with self.farm.database.transaction() as session:
            caller = allowed(tenants.authenticate(session, self.secret), scope)
            yield Looking(session, caller, policies.read(session, caller.tenant_id).name)


async def visitor(request: Request, farm: FarmPart) -> Visitor:
    """The holder of the session; a form is counted as a call of the key, a page to look at is not.

    Raises:
        Unauthorized: nobody is logged in, or not any more.
        TooManyRequests: the key has called too often, or has too many calls open.
    """
    visit = sessions.find(farm.sealer, request.headers.get("cookie", ""))
    if visit is None:
        raise Unauthorized(sessions.OVER)
    if request.method not in sessions.SAFE:
        await count(request, visit.secret)
    return Visitor(farm, visit.secret, sessions.has_written(request.headers.get("cookie", "")))


VisitorPart = Annotated[Visitor, Depends(visitor)]


async def follower(request: Request, visitor: VisitorPart) -> Visitor:
    """The same for a stream, which is an open call while somebody follows it.

    Raises:
        TooManyRequests: as above.
    """
    await count(request, visitor.secret)
    return visitor


FollowerPart = Annotated[Visitor, Depends(follower)]
