"""From the rendered picture to the bytes that are stored: crop, encode, mark as made by a model.

Each setting was chosen on 1024 x 1024 pixels of gradient and grain, one encode at a time on a 2-core machine:

====================  =======================================  ==========  ========
format                setting                                  time        size
====================  =======================================  ==========  ========
PNG                   compress_level 1 (level 6: -8 % bytes)   102 ms      2.22 MB
JPEG, quality 95      4:4:4 from quality 90 on, else 4:2:0     5 ms        0.82 MB
WebP, quality 75      method 2 (0: +10 % bytes, 4: 2.8x time)  22 ms       0.05 MB
WebP, quality 100     lossless, method 0, effort 0             19 ms       2.20 MB
AVIF, quality 75      speed 8, two threads                     40 ms       0.17 MB
GIF                   fast octree, then dithered               30 ms       0.71 MB
====================  =======================================  ==========  ========

Pillow lets go of the interpreter lock while it encodes, so a thread that encodes does not hold up the one that renders.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from PIL import ExifTags, Image, PngImagePlugin

from fluxfarm.errors import InvalidField, RenderFailed
from storage.provenance import SOURCE_TYPE

SOFTWARE: Final = "Fluxfarm"
#: IPTC Photo Metadata 2023.1, "Digital Source Type"; the packet wrapper is from the XMP specification, part 1.
XMP: Final = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    f' xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="{SOFTWARE}"'
    f' Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
).encode()

FINE: Final = 90  #: quality from which JPEG and AVIF keep the colour of every pixel (4:4:4)
LOSSLESS: Final = 100  #: quality at which WebP loses nothing
QUALITY_FORMATS: Final = frozenset({"jpeg", "webp", "avif"})  #: PNG and GIF ignore the quality
#: XMP specification, part 3, "GIF": a decoder that skips sub-blocks falls off this ramp at the end of the packet.
_GIF_RAMP: Final = b"\x01" + bytes(range(255, -1, -1)) + b"\x00"


Mark = Callable[[Image.Image], Image.Image]  #: an RGB picture to the one with the invisible mark
Sign = Callable[[bytes, str], bytes]  #: a file and its content type to the signed file


@dataclass(frozen=True, slots=True)
class Encoded:
    """One file, ready for the object store; ``width`` and ``height`` are in pixels, ``sha256`` in hex."""

    body: bytes
    content_type: str
    extension: str
    width: int
    height: int
    sha256: str


def centre_crop(image: Image.Image, width: int, height: int) -> Image.Image:
    """Cut the size asked for out of the middle, since the pipelines draw multiples of 16 only; always a new picture.

    An odd rest loses its extra pixel on the right and at the bottom.

    Raises:
        RenderFailed: the picture is smaller than what was asked for.
    """
    if image.width < width or image.height < height:
        raise RenderFailed(f"The pipeline drew {image.width}x{image.height}, but {width}x{height} was asked for.")
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def encode(
    image: Image.Image,
    *,
    output_format: str,
    quality: int,
    width: int,
    height: int,
    mark: Mark | None = None,
    sign: Sign | None = None,
) -> Encoded:
    """Crop to ``width`` x ``height``, encode and mark as AI-made; nothing else that the picture carries is written.

    ``mark`` gets the cropped picture. ``sign`` comes last and gets the whole file. Without it the same pixels and
    arguments give the same bytes with the same versions of the libraries; a signature differs each time. ``quality``
    is 0 to 100; PNG and GIF ignore it (``QUALITY_FORMATS``), WebP is lossless at 100. GIF has 256 colours.

    Raises:
        InvalidField: the format is none of ``CODECS``, or the quality is out of its range.
        RenderFailed: the picture is smaller than what was asked for, or too large for the format.
    """
    if output_format not in CODECS:
        raise InvalidField(f"{output_format!r} is not one of {', '.join(CODECS)}.", param="output_format")
    if not 0 <= quality <= LOSSLESS:
        raise InvalidField(f"The quality is 0 to {LOSSLESS}, not {quality}.", param="output_quality")
    codec = CODECS[output_format]
    picture = centre_crop(image, width, height).convert("RGB")
    if mark is not None:
        picture = mark(picture)
    picture.info = {}
    try:
        body = codec.write(picture, quality)
    except (OSError, ValueError) as error:
        raise RenderFailed(f"{width}x{height} cannot be written as {output_format}: {error}.") from error
    if sign is not None:
        body = sign(body, codec.content_type)
    digest = hashlib.sha256(body).hexdigest()
    return Encoded(body, codec.content_type, codec.extension, width, height, digest)


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = SOFTWARE
    return exif


def _png(picture: Image.Image, _quality: int) -> bytes:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("XML:com.adobe.xmp", XMP.decode())
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=1, pnginfo=chunks, exif=_exif())
    return out.getvalue()


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    subsampling = "4:4:4" if quality >= FINE else "4:2:0"
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality, subsampling=subsampling, xmp=XMP, exif=_exif())
    return out.getvalue()


def _webp(picture: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    if quality >= LOSSLESS:
        picture.save(out, "WEBP", lossless=True, quality=0, method=0, xmp=XMP, exif=_exif())
    else:
        picture.save(out, "WEBP", quality=quality, method=2, xmp=XMP, exif=_exif())
    return out.getvalue()


def _avif(picture: Image.Image, quality: int) -> bytes:
    subsampling = "4:4:4" if quality >= FINE else "4:2:0"
    out = io.BytesIO()
    # A fixed number of threads: the default is the number of cores, and one core gives other bytes than two.
    picture.save(out, "AVIF", quality=quality, speed=8, subsampling=subsampling, max_threads=2, xmp=XMP, exif=_exif())
    return out.getvalue()


def _gif(picture: Image.Image, _quality: int) -> bytes:
    palette = picture.quantize(256, method=Image.Quantize.FASTOCTREE)
    out = io.BytesIO()
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(out, "GIF")
    return _mark_gif(out.getvalue())


def _mark_gif(body: bytes) -> bytes:
    """Put the XMP application extension behind the global colour table; Pillow has no call for it."""
    flags = body[10]
    start = 13 + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0)
    extension = b"\x21\xff\x0bXMP DataXMP" + XMP + _GIF_RAMP
    return b"GIF89a" + body[6:start] + extension + body[start:]


@dataclass(frozen=True, slots=True)
class Codec:
    """How one format is written and named."""

    content_type: str
    extension: str
    write: Callable[[Image.Image, int], bytes]


CODECS: Final[dict[str, Codec]] = {
    "png": Codec("image/png", "png", _png),
    "jpeg": Codec("image/jpeg", "jpg", _jpeg),
    "webp": Codec("image/webp", "webp", _webp),
    "avif": Codec("image/avif", "avif", _avif),
    "gif": Codec("image/gif", "gif", _gif),
}
