"""A call that makes something other than one job: under an ``Idempotency-Key`` it is done once and answered once.

The reply is kept for the key's time, sealed, as some show a secret that is shown nowhere else, and given again as it
was (docs/decisions/0016), to a key with the same scopes (0017). A route names its call with ``begin`` in the first
transaction and gives its reply to ``keep`` in the one that stores what was made; what fails in between gives the key
up.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Annotated, Any, Final
from uuid import uuid4

from fastapi import Depends, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from api.auth import Secret, allowed
from api.bodies import parse_json
from api.farm import Farm, FarmPart
from api.idempotency import REPLAYED, IdempotencyKey, digest, guarded, release
from fluxfarm.scopes import Scope
from storage.database import Session
from storage.repository import kept_replies, tenants
from storage.repository.idempotency import Taken
from storage.repository.kept_replies import Kept
from storage.repository.tenants import Caller

HEADERS: Final = ("location",)  #: of a reply, kept with it

#: what tells two calls of a route apart: a JSON body as it came, or what was read of another one
Said = bytes | BaseModel | Mapping[str, Any] | None


class Replayed(Exception):
    """Ends a call with the reply of the first one."""

    def __init__(self, reply: Response) -> None:
        """``reply`` is what the caller gets."""
        super().__init__("replayed")
        self.reply = reply


class Creation:
    """One such call, with a key or without."""

    def __init__(self, farm: Farm, secret: str, request: Request, key: str | None) -> None:
        """``key`` is the caller's own; a client of OpenAI's that names none says which try a call is."""
        self._farm, self._secret, self._request, self._key = farm, secret, request, key
        self.call: Taken | None = None

    def begin(self, session: Session, scope: Scope, said: Said = None) -> Caller:
        """Who calls, if the key has the scope; the idempotency key is this call's from here on.

        Raises:
            Unauthorized, Forbidden: nobody, or not allowed to.
            Replayed: the same call came before.
            IdempotencyKeyReused, IdempotencyInFlight: another call came before, or the same one is worked on.
        """
        caller = allowed(tenants.authenticate(session, self._secret), scope)
        guard = guarded(self._request, self._secret, self._key, partial(self._digest, caller, said))
        if guard is not None:
            call = guard.call(caller.tenant_id, uuid4())
            if (kept := kept_replies.take(session, call)) is not None:
                raise Replayed(self._opened(kept))
            self.call = call
        return caller

    def enter(self, scope: Scope, said: Said = None) -> Caller:
        """The same in a transaction of its own: the key is held for two minutes, until ``keep`` or a failure."""
        with self._farm.database.transaction() as session:
            return self.begin(session, scope, said)

    def keep(self, session: Session, reply: Response) -> Response:
        """The reply, which the same call gets again from now on; in the transaction that stores what was made.

        Raises:
            IdempotencyInFlight: the hold ran out and another call has the key; this one must store nothing.
        """
        if self.call is not None:
            told = {
                "body": bytes(reply.body).decode(),
                "type": reply.media_type,
                "headers": {name: reply.headers[name] for name in HEADERS if name in reply.headers},
            }
            kept_replies.keep(
                session,
                self.call,
                status_code=reply.status_code,
                sealed=self._farm.sealer.seal(json.dumps(told)),
                ttl=self._farm.settings.idempotency_ttl,
            )
        return reply

    def close(self, reply: Response) -> Response:
        """As ``keep``, for what was stored before and is not made twice however often it is asked for."""
        if self.call is None:
            return reply
        with self._farm.database.transaction() as session:
            return self.keep(session, reply)

    def _digest(self, caller: Caller, said: Said) -> bytes:
        """With the scopes: what an operator was answered is no answer to an admin who asks the same."""
        url, scopes = self._request.url, " ".join(sorted(caller.scopes))
        if isinstance(said, BaseModel):
            said = said.model_dump(mode="json")
        elif isinstance(said, bytes):
            said = parse_json(said)
        return digest(f"{self._request.method} {url.path}?{url.query} {scopes}", None if said is None else dict(said))

    def _opened(self, kept: Kept) -> Response:
        told = json.loads(self._farm.sealer.open(kept.sealed))
        headers = {**told["headers"], REPLAYED: "true"}
        return Response(told["body"], kept.status_code, headers, media_type=told["type"])


async def _creation(farm: FarmPart, secret: Secret, request: Request, key: IdempotencyKey) -> AsyncIterator[Creation]:
    made = Creation(farm, secret, request, key)
    try:
        yield made
    except Exception:
        if made.call is not None:
            await run_in_threadpool(release, farm, made.call)
        raise


Making = Annotated[Creation, Depends(_creation)]


async def _replay(_request: Request, replayed: Exception) -> Response:
    assert isinstance(replayed, Replayed)
    return replayed.reply


def install(app: FastAPI) -> None:
    """Let a call that came before end with its first reply."""
    app.add_exception_handler(Replayed, _replay)
