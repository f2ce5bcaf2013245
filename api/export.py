"""What leaves a campaign: the chosen files under their names, with a manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID

from api.farm import Farm
from fluxfarm.campaigns import archive, manifest
from fluxfarm.campaigns.archive import Entry
from fluxfarm.campaigns.manifest import Line
from fluxfarm.campaigns.review_record import Choice
from storage.campaign_records import Campaign
from storage.repository import campaign_assets
from storage.repository.campaign_assets import Listed

BATCH: Final = 2_000  #: files that one query lists


@dataclass(frozen=True, slots=True)
class Export:
    """The files that are delivered, in their order."""

    entries: list[Entry]
    lines: list[Line]
    name: str

    def with_manifest(self) -> list[Entry]:
        """The files, and the two forms of the manifest."""
        table, tree = manifest.as_csv(self.lines), manifest.as_json(self.name, self.lines)
        texts = (("manifest.csv", table), ("manifest.json", tree))
        return [*self.entries, *(Entry(name, len(body), partial(bytes, body)) for name, body in texts)]

    def archive(self, campaign: Campaign) -> tuple[int, Iterator[bytes]]:
        """The length of the ZIP, and the ZIP."""
        entries = self.with_manifest()
        return archive.length(entries), archive.stream(entries, campaign.created_at)


def chosen(farm: Farm, campaign: Campaign, choice: Choice, *, number: int | None = None) -> Iterator[Listed]:
    """The files that have a picture and are asked for, or the one of this number if it is one of them.

    Each batch is a transaction of its own.
    """
    if choice is Choice.AUTO:
        choice = Choice.APPROVED if campaign.spec.get("review") else Choice.DONE
    verdict = "approve" if choice is Choice.APPROVED else None
    after = -1 if number is None else number - 1
    batch = BATCH if number is None else 1
    while True:
        with farm.database.transaction() as session:
            page = campaign_assets.page(
                session,
                campaign.id,
                after=after,
                limit=batch,
                status="SUCCESS",
                drafts=choice is Choice.DRAFTS,
                verdict=verdict,
            )
        yield from (one for one in page if one.has_picture and number in (None, one.n))
        if len(page) < batch or number is not None:
            return
        after = page[-1].n


def gather(farm: Farm, campaign: Campaign, choice: Choice) -> Export:
    """List what will be delivered; the pictures themselves are read when they are sent."""
    entries, lines = [], []
    for one in chosen(farm, campaign, choice):
        assert one.object_key is not None
        entries.append(Entry(one.name, one.size_bytes or 0, partial(farm.store.get, one.object_key)))
        lines.append(line_of(farm, one))
    return Export(entries, lines, campaign.name)


def line_of(farm: Farm, one: Listed) -> Line:
    """The manifest's line of a file that has a picture."""
    return Line(
        file=one.name,
        row=one.row,
        key=one.key,
        locale=one.locale,
        placement=one.placement,
        variant=one.variant,
        prompt=one.prompt or "",
        seed=one.seed,
        model=one.model or "",
        width=one.width or 0,
        height=one.height or 0,
        cost=str(one.cost or 0),
        sha256=one.sha256 or "",
        uuid=str(one.job_uuid),
        url=asset_url(farm, one.job_uuid),
        verdict=one.verdict or "",
    )


def asset_url(farm: Farm, job: UUID | None) -> str:
    """The link that never dies."""
    return f"{farm.settings.base_url}/v1/assets/{job}/0"
