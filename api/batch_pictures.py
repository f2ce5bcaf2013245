"""The pictures that the lines of a batch name or bring: each found, fetched or redrawn once for all lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from api.dialects.openai import ImagesOrder
from api.farm import Farm
from api.order import Inline, Linked, Source, Uploaded
from api.outside_pictures import MAX_URLS, Keeper, fetch
from fluxfarm.errors import BadRequest, InvalidReference
from fluxfarm.sizes import Size
from storage.pictures import sanitise
from storage.records import Reference
from storage.repository import references


@dataclass(frozen=True, slots=True)
class BatchPictures:
    """What each picture of a batch stands for, or why it cannot be used."""

    found: Mapping[str, Reference]  #: uploaded before, by id
    brought: dict[Source, Reference | BadRequest] = field(default_factory=dict)  #: rows that are not stored yet

    def row(self, image: Source, param: str) -> Reference:
        """The picture of a line.

        Raises:
            BadRequest: one of its leaves; ``param`` names the picture.
        """
        row = self.found.get(image.id) if isinstance(image, Uploaded) else self.brought[image]
        if isinstance(image, Uploaded) and row is None:
            raise InvalidReference(f"There is no reference {image.id!r}.", param=param)
        if isinstance(row, BadRequest):
            row.param = param
            raise row.with_traceback(None)  # other lines raise it, too
        assert row is not None
        return row

    def places(self, asked: ImagesOrder) -> list[tuple[str, Size]]:
        """The key and the size of each picture of a line.

        Raises:
            BadRequest: as above.
        """
        rows = [self.row(image, f"images.{index}") for index, image in enumerate(asked.order.images)]
        return [(row.object_key, Size(row.width, row.height)) for row in rows]


def too_many(orders: Iterable[ImagesOrder]) -> dict[str, Any] | None:
    """What is wrong with a file that names too many URLs."""
    urls = {image.url for asked in orders for image in asked.order.images if isinstance(image, Linked)}
    if len(urls) <= MAX_URLS:
        return None
    message = (
        f"The file names {len(urls):,} different URLs of pictures; at most {MAX_URLS} are fetched for a batch. "
        "POST the pictures to /v1/references and name their ids."
    )
    return {"code": "too_many_urls", "message": message, "param": "images", "line": None}


def gather(farm: Farm, orders: Iterable[ImagesOrder], keeper: Keeper) -> BatchPictures:
    """Look up what was uploaded, fetch each URL once, redraw what stands in the lines once; all is put, not stored."""
    sources = dict.fromkeys(image for asked in orders for image in asked.order.images)
    named = [image.id for image in sources if isinstance(image, Uploaded)]
    with farm.database.transaction() as session:
        pictures = BatchPictures(references.find(session, keeper.tenant_id, named))
    for url, look in fetch(farm, [image.url for image in sources if isinstance(image, Linked)]):
        pictures.brought[Linked(url)] = look if isinstance(look, BadRequest) else keeper.keep(look)
    for image in sources:
        if isinstance(image, Inline):
            pictures.brought[image] = _redrawn(image, keeper)
    return pictures


def _redrawn(image: Inline, keeper: Keeper) -> Reference | BadRequest:
    try:
        return keeper.keep(sanitise(image.body))
    except BadRequest as error:
        return error
