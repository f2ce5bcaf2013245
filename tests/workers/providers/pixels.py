"""Files of pictures for tests."""

from __future__ import annotations

import io

from PIL.Image import Image


def png_of(picture: Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
