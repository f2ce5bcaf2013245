"""The pictures that a campaign's prompts refer to: found, fetched, and kept as uploaded references."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import structlog

from api.farm import Farm
from fluxfarm.campaigns.assets import Asset
from fluxfarm.campaigns.rows import Issues
from fluxfarm.campaigns.source import invalid
from fluxfarm.errors import BadRequest, DatabaseUnavailable, FluxfarmError, Issue
from storage.database import Session
from storage.keys import random_id
from storage.objects import reference_key
from storage.pictures import Picture, sanitise
from storage.records import Reference
from storage.repository import references

MAX_URLS: Final = 100  #: different ones in a campaign; more are uploaded first
AT_ONCE: Final = 4  #: that are fetched side by side

log = structlog.get_logger()


@dataclass(slots=True)
class Pictures:
    """What each reference text of a campaign stands for."""

    kept: dict[str, Reference] = field(default_factory=dict)
    urls: list[str] = field(default_factory=list)  #: that are to be fetched

    def identity(self) -> dict[str, str]:
        """What tells two campaigns apart: the content of an uploaded picture, the text of a URL."""
        return {text: row.sha256 for text, row in self.kept.items()} | {text: text for text in self.urls}

    def stored(self) -> dict[str, Any]:
        """For the campaign's row."""
        return {text: {"id": row.id, "key": row.object_key} for text, row in sorted(self.kept.items())}


def find(session: Session, tenant_id: UUID, assets: Iterable[Asset], files: Mapping[str, str]) -> Pictures:
    """Look every reference of the assets up.

    Raises:
        InvalidCampaign: an id that the tenant does not have, or a file name that was not uploaded, by its first row.
    """
    users: dict[str, Asset] = {}
    for asset in assets:
        for text in asset.references:
            users.setdefault(text, asset)
    named = {text: files.get(text, text) for text in users}
    rows = references.find(session, tenant_id, {text for text in named.values() if text.startswith("ref_")})
    found, issues = Pictures(), Issues()
    for text, target in named.items():
        if target.startswith("ref_"):
            if target in rows:
                found.kept[text] = rows[target]
            else:
                issues.add(
                    _issue(users[text], f"there is no reference {target[:64]!r}; POST /v1/references makes one.")
                )
        elif target[:8].lower().startswith(("https://", "http://")):
            found.urls.append(text)
        else:
            issues.add(
                _issue(users[text], f"{target[:100]!r} is neither an id (ref_…) nor an https URL; upload the file.")
            )
    if len(found.urls) > MAX_URLS:
        message = f"{len(found.urls):,} different URLs; at most {MAX_URLS} are fetched. Upload the pictures."
        issues.add(Issue(message=message, param="references"))
    if issues:
        raise invalid(issues.kept, issues.total)
    return found


def _issue(asset: Asset, message: str) -> Issue:
    return Issue(message=message, param="references", row=asset.row or None)


def fetch(farm: Farm, found: Pictures, assets: Iterable[Asset]) -> dict[str, Picture]:
    """What is behind the URLs, redrawn; nothing is stored.

    Raises:
        InvalidCampaign: one cannot be fetched or is no picture, by its first row.
    """
    users: dict[str, Asset] = {}
    for asset in assets:
        for text in asset.references:
            users.setdefault(text, asset)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        looks = {text: pool.submit(_look, farm, text) for text in found.urls}
    issues = Issues()
    pictures: dict[str, Picture] = {}
    for text, look in looks.items():
        try:
            pictures[text] = look.result()
        except BadRequest as error:
            issues.add(_issue(users[text], f"the reference {text[:100]!r} cannot be used: {error.message}"))
    if issues:
        raise invalid(issues.kept, issues.total)
    return pictures


def _look(farm: Farm, url: str) -> Picture:
    return sanitise(farm.fetch(url))


@contextmanager
def kept(farm: Farm, tenant_id: UUID, pictures: Mapping[str, Picture]) -> Iterator[dict[str, Reference]]:
    """Puts fetched pictures into the store; their rows are made inside, in the campaign's own transaction.

    They are taken away again when the campaign was not stored. A commit whose answer was lost may have stored it: then
    they stay.
    """
    rows: dict[str, Reference] = {}
    try:
        for text, picture in pictures.items():
            rows[text] = _row(tenant_id, picture)
            farm.store.put(rows[text].object_key, picture.png, "image/png")
        yield rows
    except DatabaseUnavailable:
        log.warning("objects_left", count=len(rows), error=DatabaseUnavailable.code)
        raise
    except BaseException:
        forget(farm, rows.values())
        raise


def forget(farm: Farm, rows: Iterable[Reference]) -> None:
    """Delete pictures whose rows were not stored."""
    for row in rows:
        try:
            farm.store.delete(row.object_key)
        except FluxfarmError as error:
            log.warning("objects_left", count=1, error=error.code)


def _row(tenant_id: UUID, picture: Picture) -> Reference:
    return Reference(
        id=random_id("ref_"),
        tenant_id=tenant_id,
        object_key=reference_key(tenant_id),
        width=picture.width,
        height=picture.height,
        size_bytes=len(picture.png),
        sha256=picture.sha256,
    )
