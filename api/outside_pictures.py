"""Pictures that come with a call which makes many jobs: fetched once each, redrawn, and kept only if the call is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeGuard
from uuid import UUID

import structlog

from api.farm import Farm
from fluxfarm.errors import BadRequest, DatabaseUnavailable, FluxfarmError, StoreUnavailable
from storage.keys import random_id
from storage.objects import reference_key
from storage.pictures import Picture, sanitise
from storage.records import Reference
from storage.repository import retention

MAX_URLS: Final = 100  #: different ones in a call; more are uploaded first
AT_ONCE: Final = 4  #: that are fetched side by side

log = structlog.get_logger()


def fetch(farm: Farm, urls: Iterable[str]) -> Iterator[tuple[str, Picture | BadRequest]]:
    """What is behind each URL, redrawn, or why it cannot be used; nothing is stored."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        looks = {url: pool.submit(_look, farm, url) for url in urls}
    return ((url, look.result()) for url, look in looks.items())


def _look(farm: Farm, url: str) -> Picture | BadRequest:
    try:
        return sanitise(farm.fetch(url))
    except BadRequest as error:
        return error


def new_reference(tenant_id: UUID, picture: Picture) -> Reference:
    """The row of a picture that is yet to be put under its key."""
    return Reference(
        id=random_id("ref_"),
        tenant_id=tenant_id,
        object_key=reference_key(tenant_id),
        width=picture.width,
        height=picture.height,
        size_bytes=len(picture.png),
        sha256=picture.sha256,
    )


@dataclass(slots=True)
class Keeper:
    """Puts pictures into the store, whose rows are to follow."""

    farm: Farm
    tenant_id: UUID
    rows: list[Reference] = field(default_factory=list)

    def keep(self, picture: Picture) -> Reference:
        """Put it; gives its row, which is not stored yet."""
        row = new_reference(self.tenant_id, picture)
        with self.farm.database.transaction() as session:
            retention.foresee(session, self.tenant_id, row.object_key)
        self.rows.append(row)
        self.farm.store.put(row.object_key, picture.png, "image/png")
        return row


@contextmanager
def keeping(farm: Farm, tenant_id: UUID) -> Iterator[Keeper]:
    """Around the transaction that stores the rows: what was put is taken away again when that fails.

    What was noted first stays for the scheduler where ``is_left_to_the_scheduler``.
    """
    keeper = Keeper(farm, tenant_id)
    try:
        yield keeper
    except BaseException as error:
        if is_left_to_the_scheduler(error):
            log.warning("objects_left", count=len(keeper.rows), error=error.code)
        else:
            forget(farm, keeper.rows)
        raise


def is_left_to_the_scheduler(error: BaseException) -> TypeGuard[FluxfarmError]:
    """Whether what was put for a call that failed is not taken away at once.

    A commit without an answer may have stored its rows; a store that is silent would only be waited for again.
    """
    return isinstance(error, StoreUnavailable) or (isinstance(error, DatabaseUnavailable) and error.may_be_done)


def forget(farm: Farm, rows: Iterable[Reference]) -> None:
    """Delete pictures whose rows were not stored."""
    for row in rows:
        try:
            farm.store.delete(row.object_key)
        except FluxfarmError as error:
            log.warning("objects_left", count=1, error=error.code)
