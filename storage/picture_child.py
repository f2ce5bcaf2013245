"""Decodes one picture from a stranger in a process of its own, which may die of it.

``storage/pictures.py`` runs this file by its path, with ``python -I``: it stands alone and imports the standard library
and Pillow only. Picture on stdin; on stdout one line of JSON, then the new PNG. A refusal is that line with ``error``
and no PNG; a crash, or a limit of the kernel, leaves nothing on stdout.

Arguments: seconds that it may take, bytes of address space, most pixels in, most pixels out.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import resource
import signal
import struct
import sys
from typing import Final

from PIL import ExifTags, Image, ImageCms, ImageFile

FORMATS: Final = ("PNG", "JPEG", "WEBP")
MEGAPIXEL: Final = 1024 * 1024
MIN_SIDE: Final = 64  #: pixels; both this and the shape are what the FLUX.2 pipelines take as a reference
MAX_ASPECT: Final = 8
WHITE: Final = (255, 255, 255)
TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  #: EXIF 2.3, tag 0x0112, to what undoes it


class RefusedError(Exception):
    """The picture breaks a rule; the text is for its sender."""


def limit_myself(seconds: float, memory: int) -> None:
    """Let the kernel end this process when it wants too much; what a platform lacks is left out."""
    limits = {"RLIMIT_AS": memory, "RLIMIT_CPU": math.ceil(seconds), "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0}
    for name, wanted in limits.items():
        with contextlib.suppress(AttributeError, ValueError, OSError):  # macOS knows, but refuses, RLIMIT_AS
            kind = getattr(resource, name)
            hard = resource.getrlimit(kind)[1]
            wanted_or_less = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(kind, (wanted_or_less, wanted_or_less))
    signal.setitimer(signal.ITIMER_REAL, seconds)  # also when the parent is gone; the default action ends the process


def check(image: ImageFile.ImageFile, max_pixels: int) -> None:
    """Judge by the header alone, before a pixel is decoded.

    Raises:
        RefusedError: too large, too small, too long, or animated.
    """
    width, height = image.size
    if width * height > max_pixels:
        most = max_pixels / MEGAPIXEL
        raise RefusedError(f"It has {width}x{height} pixels; at most {most:g} megapixels are taken. Scale it down.")
    if min(width, height) < MIN_SIDE:
        raise RefusedError(f"It has {width}x{height} pixels; each side needs {MIN_SIDE} or more. Send a larger one.")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise RefusedError(
            f"It has {width}x{height} pixels; the longer side may be at most {MAX_ASPECT} times the shorter. Crop it."
        )
    # MPO is a JPEG with more pictures behind it (a preview, a depth map): every newer phone; the first is the photo.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise RefusedError("It is animated; send a single frame of it.")


def upright(image: Image.Image) -> Image.Image:
    """Turn it as EXIF says; damaged EXIF says nothing."""
    orientation = None
    with contextlib.suppress(SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def flat(image: Image.Image) -> Image.Image:
    """Lay what is transparent on white; the mode is then L, RGB or CMYK."""
    if image.mode in {"I", "I;16"}:
        # convert("L") alone would clip 16 bits at 255; and no pixel has the transparent key any more
        image = image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")
        image.info.pop("transparency", None)
    if image.has_transparency_data:
        above = image.convert("RGBA")
        ground = Image.new("RGB", above.size, WHITE)
        ground.paste(above, mask=above.getchannel("A"))
        return ground
    if image.mode == "CMYK":
        return image
    return image.convert("L" if image.mode in {"1", "L"} else "RGB")


def shrunk(image: Image.Image, max_pixels: int) -> Image.Image:
    """Scale down to ``max_pixels``, the shape still within ``MAX_ASPECT`` after rounding."""
    if image.width * image.height <= max_pixels:
        return image
    scale = math.sqrt(max_pixels / (image.width * image.height))
    shorter = int(min(image.size) * scale)
    longer = min(int(max(image.size) * scale), shorter * MAX_ASPECT)
    size = (longer, shorter) if image.width >= image.height else (shorter, longer)
    return image.resize(size, Image.Resampling.LANCZOS)


def in_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Convert from the profile that came with the picture; a damaged or unfitting one counts as none."""
    if icc:
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            space = profile.profile.xcolor_space.strip()
            fitting = image.convert("RGB") if space == "RGB" and image.mode == "L" else image
            converted = ImageCms.profileToProfile(fitting, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
            return converted if converted is not None else fitting.convert("RGB")
    return image.convert("RGB")


def redraw(body: bytes, max_pixels_in: int, max_pixels_out: int) -> tuple[Image.Image, str]:
    """Decode, turn, flatten, shrink and convert; gives the picture and the format that it had.

    Raises:
        RefusedError: it breaks a rule or cannot be decoded.
    """
    Image.MAX_IMAGE_PIXELS = None  # ``check`` is stricter, and words it
    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as image:
            check(image, max_pixels_in)
            image.load()
            icc = image.info.get("icc_profile")
            picture = in_srgb(shrunk(flat(upright(image)), max_pixels_out), icc)
            return picture, "jpeg" if image.format == "MPO" else str(image.format).lower()
    except MemoryError:
        raise RefusedError("It needs too much memory to decode; save it anew, without metadata.") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise RefusedError("It is damaged, incomplete or full of metadata; save it anew.") from error


def main(arguments: list[str]) -> int:
    """Run once; the exit status is 0 for a picture, 1 for a refusal."""
    limit_myself(float(arguments[0]), int(arguments[1]))
    body = sys.stdin.buffer.read()
    out = io.BytesIO()
    try:
        picture, source_format = redraw(body, int(arguments[2]), int(arguments[3]))
        picture.info = {}
        picture.save(out, "PNG", compress_level=1)
        reply = {"width": picture.width, "height": picture.height, "source_format": source_format}
    except RefusedError as refusal:
        reply = {"error": str(refusal)}
    sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
    sys.stdout.buffer.write(out.getbuffer())
    sys.stdout.buffer.flush()
    return int("error" in reply)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
