"""How a picture of a caller becomes a reference, whatever the call is named."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from anyio import to_thread
from fastapi.concurrency import run_in_threadpool

from api.auth import allowed, owner
from api.farm import Farm
from api.outside_pictures import keeping
from fluxfarm.errors import BadRequest
from fluxfarm.scopes import Scope
from storage.pictures import Picture, sanitise
from storage.records import Reference
from storage.repository import references, tenants


async def keep(farm: Farm, secret: str, body: bytes, field: str) -> Reference:
    """Redraw the picture and keep it, once however often it comes; ``field`` is its name in the call, for errors.

    Raises:
        InvalidReference: no picture that can be used.
        StoreUnavailable: it cannot be kept now.
    """
    picture = await to_thread.run_sync(_redraw, body, field, limiter=farm.pictures)
    return await run_in_threadpool(_keep, farm, secret, picture)


def said(fields: Mapping[str, Any], files: Iterable[tuple[str, bytes]]) -> dict[str, Any]:
    """What tells two forms apart, whatever boundary is between their parts."""
    return {"fields": fields, "files": [[name, hashlib.sha256(body).hexdigest()] for name, body in files]}


def _redraw(body: bytes, field: str) -> Picture:
    try:
        return sanitise(body)
    except BadRequest as error:
        error.param = field
        raise


def _keep(farm: Farm, secret: str, picture: Picture) -> Reference:
    tenant_id = owner(farm, secret)
    with farm.database.transaction() as session:
        same = references.find_same(session, tenant_id, picture.sha256)
    if same is not None and farm.store.stat(same.object_key) is not None:
        with farm.database.transaction() as session:
            renewed = references.renew(session, tenant_id, same.id)
        if renewed is not None:
            return renewed
    with keeping(farm, tenant_id) as keeper:
        row = keeper.keep(picture)
        with farm.database.transaction() as session:
            allowed(tenants.authenticate(session, secret), Scope.RENDER)  # again: it may be revoked by now
            return references.create(session, row)
