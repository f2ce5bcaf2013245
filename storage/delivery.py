"""Links to pictures that the API itself serves, whatever the object store.

Replicate's Python client fetches an output with its token in ``Authorization``, which S3 refuses beside the signature
of a presigned URL ("Only one auth mechanism allowed").
"""

from __future__ import annotations

from typing import Final, Self
from urllib.parse import urlencode

from fluxfarm.settings import Settings
from storage.links import LinkSigner, SignedLink, content_disposition
from storage.records import Job
from storage.sealing import Sealer

PURPOSE: Final = "delivery links"
PATH: Final = "/replicate/delivery"


class Delivery:
    """Makes and checks such links; the keys follow from ``FLUXFARM_SECRET_KEY``, so that API and sender agree."""

    def __init__(self, settings: Settings, signer: LinkSigner) -> None:
        """``signer`` has the keys."""
        self._settings = settings
        self._signer = signer

    @classmethod
    def of(cls, settings: Settings, sealer: Sealer) -> Self:
        """With the farm's own keys."""
        return cls(settings, LinkSigner.of(key.hex() for key in sealer.derive(PURPOSE)))

    def urls(self, job: Job) -> list[str]:
        """Temporary URLs of the job's pictures, in their order."""
        found = []
        for image in job.images:
            disposition = content_disposition(image.object_key.rpartition("/")[2], inline=True)
            granted = self._signer.sign(
                image.object_key,
                ttl=self._settings.link_ttl,
                content_type=image.content_type,
                disposition=disposition,
            )
            found.append(f"{self._settings.base_url}{PATH}/{image.object_key}?{urlencode(granted)}")
        return found

    def open(self, key: str, parameters: dict[str, str]) -> SignedLink:
        """What a link grants.

        Raises:
            Forbidden: a part is missing or was altered.
            LinkExpired: its time is over.
        """
        return self._signer.verify(key, parameters)
