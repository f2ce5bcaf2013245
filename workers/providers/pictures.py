"""Pictures on the wire: references made small enough to send, base64 and data URIs in both directions."""

from __future__ import annotations

import base64
import binascii
import io
import math
from typing import Final

from PIL import Image

from fluxfarm.sizes import MEGAPIXEL

LARGEST_REFERENCE: Final = 4 * MEGAPIXEL  #: pixels; every FLUX.2 service shrinks a larger one to this
_DATA: Final = "data:"


def shrink(png: bytes, *, max_pixels: int = LARGEST_REFERENCE, max_side: int | None = None) -> bytes:
    """The PNG, made smaller if it has more pixels or a longer side than is taken; its shape is kept."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
        width, height = picture.size
        scale = min(1.0, math.sqrt(max_pixels / (width * height)))
        if max_side is not None:
            scale = min(scale, max_side / max(width, height))
        if scale == 1.0:
            return png
        size = (max(1, math.floor(width * scale)), max(1, math.floor(height * scale)))
        smaller = io.BytesIO()
        picture.resize(size, Image.Resampling.LANCZOS).save(smaller, "PNG", compress_level=1)
        return smaller.getvalue()


def to_base64(png: bytes) -> str:
    """Without a prefix."""
    return base64.b64encode(png).decode()


def to_data_uri(png: bytes) -> str:
    """With it."""
    return f"{_DATA}image/png;base64,{to_base64(png)}"


def from_base64(text: object) -> bytes | None:
    """The bytes of base64, bare or as a data URI; None for anything else. What they are is for the reader to sniff."""
    if not isinstance(text, str):
        return None
    payload = text.partition(",")[2] if text.startswith(_DATA) else text
    try:
        return base64.b64decode(payload, validate=True) or None
    except (binascii.Error, ValueError):
        return None
