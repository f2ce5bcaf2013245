"""Temporary links to a job's pictures; made when somebody reads or is told, never kept."""

from __future__ import annotations

from fluxfarm.settings import Settings
from storage.objects import ObjectStore
from storage.records import Image


def presigned(store: ObjectStore, settings: Settings, image: Image) -> str:
    """A temporary URL of a picture; it opens in a browser and is saved under a name that tells the job."""
    extension = image.object_key.rpartition(".")[2]
    return store.presign(
        image.object_key,
        ttl=settings.link_ttl,
        content_type=image.content_type,
        filename=f"{str(image.job_uuid)[:8]}-{image.n}.{extension}",
        inline=True,
    )
