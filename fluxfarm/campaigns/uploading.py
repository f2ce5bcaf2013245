"""The delivery of a campaign into a bucket: every file of its archive under the archive's own name."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

import httpx

from fluxfarm.bucket import Bucket, client_for

AT_ONCE: Final = 4
MANIFESTS: Final = ("manifest.csv", "manifest.json")  #: written last, so that they mean that all the rest is there
TYPES: Final = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "avif": "image/avif",
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
}


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What was written."""

    files: int
    size: int  #: bytes


def upload(archive: Path, bucket: Bucket) -> Uploaded:
    """Write the files of an exported ZIP into the bucket; the same again writes the same, and nothing is deleted.

    Raises:
        Forbidden, NotFound, InvalidField, StoreUnavailable: as ``Bucket.put``; what was written stays.
    """
    with zipfile.ZipFile(archive) as opened, client_for(bucket) as client:
        pictures = [one for one in opened.infolist() if one.filename not in MANIFESTS]
        last = [one for one in opened.infolist() if one.filename in MANIFESTS]
        sizes = [*_side_by_side(opened, client, bucket, pictures), *_side_by_side(opened, client, bucket, last)]
    return Uploaded(len(sizes), sum(sizes))


def _side_by_side(
    opened: zipfile.ZipFile, client: httpx.Client, bucket: Bucket, entries: list[zipfile.ZipInfo]
) -> Iterator[int]:
    reading = Lock()

    def put(entry: zipfile.ZipInfo) -> int:
        with reading:
            body = opened.read(entry)
        extension = entry.filename.rpartition(".")[2]
        bucket.put(client, entry.filename, body, TYPES.get(extension, "application/octet-stream"))
        return len(body)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        running: list[Future[int]] = [pool.submit(put, entry) for entry in entries]
        done, left = wait(running, return_when=FIRST_EXCEPTION)
        for one in left:
            one.cancel()
        yield from (one.result() for one in done)
