"""Where results and references rest: one small interface, S3 or the local disk behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from fluxfarm.settings import Settings
from storage.links import link_signer
from storage.object_keys import (
    CONTENT_TYPES,
    StoredObject,
    attempt_prefix,
    job_prefix,
    object_key,
    reference_key,
    tenant_prefix,
)
from storage.objects_local import LocalStore
from storage.objects_s3 import HASTY, PATIENT, Patience, S3Store

__all__ = [
    "CONTENT_TYPES",
    "HASTY",
    "PATIENT",
    "ObjectStore",
    "Patience",
    "StoredObject",
    "attempt_prefix",
    "job_prefix",
    "make_store",
    "object_key",
    "reference_key",
    "tenant_prefix",
]


class ObjectStore(Protocol):
    """What the farm asks of a place for bytes; safe to share between threads.

    Every call raises ``StoreUnavailable`` when the store is down, refuses the credentials or is full; none hangs.
    """

    def put(self, key: str, body: bytes, content_type: str) -> None:
        """Stores the whole body or nothing; repeating it with the same bytes changes nothing.

        Raises:
            Conflict: the key holds other bytes (S3 servers without ``If-None-Match`` replace them instead; keys
                are random, so only a fault gets there).
        """

    def get(self, key: str) -> bytes:
        """The whole body; ``NotFound`` when there is none."""

    def stat(self, key: str) -> StoredObject | None:
        """Size and type, or None when there is no such object."""

    def delete(self, key: str) -> None:
        """Erases one object; nothing is done when there is none."""

    def delete_prefix(self, prefix: str) -> int:
        """Erases a folder (``job_prefix``, ``attempt_prefix``, ``tenant_prefix``) and says how many objects it held."""

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key in a folder, or in the whole store for ``t/``: what a sweep looks through."""

    def presign(self, key: str, *, ttl: int, content_type: str, filename: str | None, inline: bool) -> str:
        """A URL that gives this one object to whoever holds it, for ``ttl`` seconds, with the type pinned.

        ``filename`` is what a browser saves it as; ``inline`` shows it instead of saving. Nothing is looked up: the
        link to a missing object is made, and answers 404.
        """

    def check(self) -> None:
        """Cheap look whether the store can be used now; raises ``StoreUnavailable`` if not."""

    def close(self) -> None:
        """Gives connections back; the store is not used afterwards."""


def make_store(settings: Settings, patience: Patience = PATIENT) -> ObjectStore:
    """The store that the settings name: S3 with ``S3_BUCKET``, else the folder ``objects`` under the data folder.

    The API passes ``HASTY``: a request must not wait for a sick S3 as long as a worker may.
    """
    if settings.s3_bucket:
        return S3Store(settings, patience)
    return LocalStore(settings.data_dir / "objects", settings.base_url, link_signer(settings))
