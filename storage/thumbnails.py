"""Small pictures for pages that show many: WebP, made when first asked for, kept beside the picture that they show.

The key follows from the picture's own, in the same folder, so that whatever erases the picture erases it, too.
"""

from __future__ import annotations

import io
from typing import Final

from PIL import Image

from fluxfarm.errors import Conflict, NotFound
from storage.objects import ObjectStore

SIDE: Final = 384  #: pixels of the longer side, sharp at 192 on a dense screen
QUALITY: Final = 74
CONTENT_TYPE: Final = "image/webp"


def thumbnail_key(object_key: str) -> str:
    """Where the small picture of a picture is kept."""
    folder, _, name = object_key.rpartition("/")
    return f"{folder}/small-{name.rpartition('.')[0]}.webp"


def read_or_make(store: ObjectStore, object_key: str) -> bytes:
    """The small picture; two callers at once make the same one.

    Raises:
        NotFound: the picture itself is gone.
        StoreUnavailable: the store is down.
    """
    key = thumbnail_key(object_key)
    try:
        return store.get(key)
    except NotFound:
        body = shrink(store.get(object_key))
    try:
        store.put(key, body, CONTENT_TYPE)
    except Conflict:  # made by another release of the encoder meanwhile; this one is as good
        return body
    return body


def shrink(body: bytes) -> bytes:
    """A picture of the farm's own as a small WebP without metadata; the first frame of one that moves."""
    with Image.open(io.BytesIO(body)) as found:
        found.draft("RGB", (SIDE, SIDE))
        mode = "RGBA" if found.has_transparency_data else "RGB"
        small = found.convert(mode)
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=QUALITY, method=4)
    return out.getvalue()
