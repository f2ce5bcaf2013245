from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import ExifTags, Image, ImageChops, ImageFile, ImageStat

from fluxfarm.errors import InvalidField, RenderFailed
from storage.provenance import SOURCE_TYPE
from workers.encoding import CODECS, SOFTWARE, Encoded, centre_crop, encode

MAGIC = {
    "png": lambda body: body.startswith(b"\x89PNG\r\n\x1a\n"),
    "jpeg": lambda body: body.startswith(b"\xff\xd8\xff") and body.endswith(b"\xff\xd9"),
    "webp": lambda body: body[:4] == b"RIFF" and body[8:12] == b"WEBP",
    "avif": lambda body: body[4:12] == b"ftypavif",
    "gif": lambda body: body.startswith(b"GIF89a") and body.endswith(b"\x3b"),
}
SECRET = "a coffee shop that nobody may know of"
FORMATS = sorted(CODECS)


def picture(width: int, height: int) -> Image.Image:
    """Smooth colours with a grey grain that is always the same."""
    red = Image.linear_gradient("L").resize((width, height))
    green = red.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    blue = Image.radial_gradient("L").resize((width, height))
    grain = Image.frombytes("L", (64, 64), hashlib.shake_256(b"grain").digest(64 * 64)).resize((width, height))
    return Image.blend(Image.merge("RGB", (red, green, blue)), grain.convert("RGB"), 0.1)


def make(output_format: str, quality: int = 85, size: tuple[int, int] = (125, 91)) -> Encoded:
    return encode(picture(128, 96), output_format=output_format, quality=quality, width=size[0], height=size[1])


def reopened(encoded: Encoded) -> ImageFile.ImageFile:
    image = Image.open(io.BytesIO(encoded.body))
    image.load()
    return image


def test_every_format_has_its_magic_bytes() -> None:
    assert sorted(MAGIC) == FORMATS


@pytest.mark.parametrize("output_format", FORMATS)
def test_it_opens_again_as_what_it_says(output_format: str) -> None:
    encoded = make(output_format)
    image = reopened(encoded)
    assert MAGIC[output_format](encoded.body)
    assert image.get_format_mimetype() == encoded.content_type == f"image/{output_format}"
    assert image.size == (encoded.width, encoded.height) == (125, 91)
    assert encoded.sha256 == hashlib.sha256(encoded.body).hexdigest()
    assert encoded.extension == {"jpeg": "jpg"}.get(output_format, output_format)


@pytest.mark.parametrize("output_format", FORMATS)
def test_the_picture_is_still_the_picture(output_format: str) -> None:
    wanted = centre_crop(picture(128, 96), 125, 91)
    got = reopened(make(output_format, quality=95)).convert("RGB")
    assert max(ImageStat.Stat(ImageChops.difference(wanted, got)).mean) < (12 if output_format == "gif" else 3)


@pytest.mark.parametrize("output_format", FORMATS)
def test_it_is_marked_as_made_by_a_model(output_format: str) -> None:
    encoded = make(output_format)
    image = reopened(encoded)
    if output_format == "gif":
        name, where = image.info["extension"]
        assert name == b"XMP DataXMP"
        xmp = encoded.body[where:].split(b"\x01\xff\xfe")[0]
    else:
        xmp = image.info["xmp"]
        assert image.getexif()[ExifTags.Base.Software] == SOFTWARE
    assert f'Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"'.encode() in xmp
    assert xmp.startswith(b"<?xpacket begin")
    assert xmp.endswith(b'<?xpacket end="r"?>')


@pytest.mark.parametrize("output_format", FORMATS)
def test_nothing_that_the_picture_carries_gets_out(output_format: str) -> None:
    image = picture(64, 64)
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = SECRET
    image.info = {"comment": SECRET.encode(), "parameters": SECRET, "exif": exif.tobytes(), "xmp": SECRET.encode()}
    encoded = encode(image, output_format=output_format, quality=80, width=64, height=64)
    assert SECRET.encode() not in encoded.body
    assert image.info["parameters"] == SECRET


@pytest.mark.parametrize("output_format", ["jpeg", "webp", "avif"])
def test_quality_changes_the_size(output_format: str) -> None:
    sizes = [len(make(output_format, quality).body) for quality in (0, 30, 60, 90, 100)]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("output_format", ["png", "gif"])
def test_quality_means_nothing_here(output_format: str) -> None:
    assert make(output_format, 0) == make(output_format, 100)


@pytest.mark.parametrize("output_format", ["png", "webp"])
def test_quality_100_loses_nothing(output_format: str) -> None:
    got = reopened(make(output_format, 100)).convert("RGB")
    assert got.tobytes() == centre_crop(picture(128, 96), 125, 91).tobytes()


@pytest.mark.parametrize("output_format", FORMATS)
def test_the_same_picture_gives_the_same_bytes_also_from_threads(output_format: str) -> None:
    alone = make(output_format)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(make, [output_format] * 8)) == {alone}


@pytest.mark.parametrize(("size", "left", "top"), [((1183, 887), 0, 4), ((1182, 886), 1, 5), ((1184, 896), 0, 0)])
def test_the_crop_is_the_middle(size: tuple[int, int], left: int, top: int) -> None:
    drawn = Image.new("L", (1184, 896))
    drawn.putpixel((left, top), 255)
    drawn.putpixel((left + size[0] - 1, top + size[1] - 1), 255)
    cropped = centre_crop(drawn, *size)
    assert cropped.size == size
    assert cropped.getpixel((0, 0)) == cropped.getpixel((size[0] - 1, size[1] - 1)) == 255
    assert cropped is not drawn


@pytest.mark.parametrize("size", [(129, 96), (128, 97)])
def test_a_picture_that_is_too_small_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(RenderFailed, match=f"drew 128x96, but {size[0]}x{size[1]}"):
        encode(picture(128, 96), output_format="png", quality=80, width=size[0], height=size[1])


@pytest.mark.parametrize(("output_format", "quality"), [("bmp", 80), ("jpg", 80), ("png", 101), ("webp", -1)])
def test_a_wrong_format_or_quality_is_refused(output_format: str, quality: int) -> None:
    with pytest.raises(InvalidField):
        make(output_format, quality)


def test_too_large_for_the_format_says_so() -> None:
    long = Image.new("RGB", (16400, 16))
    with pytest.raises(RenderFailed, match="cannot be written as webp"):
        encode(long, output_format="webp", quality=80, width=16400, height=16)


def test_other_modes_are_written_too() -> None:
    encoded = encode(Image.new("RGBA", (64, 64), (9, 8, 7, 255)), output_format="jpeg", quality=90, width=64, height=64)
    assert reopened(encoded).mode == "RGB"
