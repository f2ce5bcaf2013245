"""The pictures that a campaign's prompts refer to: found, and fetched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from api import outside_pictures
from api.farm import Farm
from api.outside_pictures import MAX_URLS
from fluxfarm.campaigns.assets import Asset
from fluxfarm.campaigns.rows import Issues
from fluxfarm.campaigns.source import invalid
from fluxfarm.errors import BadRequest, Issue
from storage.database import Session
from storage.pictures import Picture
from storage.records import Reference
from storage.repository import references


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
    issues = Issues()
    pictures: dict[str, Picture] = {}
    for text, look in outside_pictures.fetch(farm, found.urls):
        if isinstance(look, BadRequest):
            issues.add(_issue(users[text], f"the reference {text[:100]!r} cannot be used: {look.message}"))
        else:
            pictures[text] = look
    if issues:
        raise invalid(issues.kept, issues.total)
    return pictures
