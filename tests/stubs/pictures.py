"""What the stubs draw: a gradient, in a colour that follows from the seed and the prompt."""

from __future__ import annotations

import hashlib
import io

from PIL import Image, ImageOps


def draw(width: int, height: int, mark: str, kind: str) -> bytes:
    """A file of this size in Pillow's format ``kind``; the same mark gives the same pixels."""
    red, green, blue = hashlib.sha256(mark.encode()).digest()[:3]
    gradient = Image.linear_gradient("L").resize((width, height))
    picture = ImageOps.colorize(gradient, (red, green, blue), (255 - red, 255 - green, 255 - blue))
    file = io.BytesIO()
    picture.save(file, kind, compress_level=1)
    return file.getvalue()
