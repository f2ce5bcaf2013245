from __future__ import annotations

import base64
import hashlib
import io
import os
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image, ImageChops, ImageCms, ImageStat

from fluxfarm.errors import InvalidReference, Unavailable
from storage import picture_child, pictures
from storage.pictures import MAX_BYTES, MEGAPIXEL, parse_data_uri, sanitise

ROOT = Path(__file__).parents[2]
CHILD = ROOT / "storage" / "picture_child.py"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def scene(mode: str = "RGB", size: tuple[int, int] = (96, 64)) -> Image.Image:
    """Red on the left, blue on the right, white below."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    image.paste(WHITE, (0, size[1] * 3 // 4, *size))
    return image.convert(mode)


def reopened(body: bytes) -> Image.Image:
    picture = sanitise(body)
    image = Image.open(io.BytesIO(picture.png), formats=["PNG"])
    image.load()
    assert image.mode == "RGB"
    assert image.size == (picture.width, picture.height)
    return image


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def chunks(png: bytes) -> list[bytes]:
    names, at = [], len(SIGNATURE)
    while at < len(png):
        names.append(png[at + 4 : at + 8])
        at += struct.unpack(">I", png[at : at + 4])[0] + 12
    return names


def with_chunk(name: bytes, data: bytes) -> bytes:
    """A good PNG with one more chunk behind its header."""
    png = saved(scene(), "PNG")
    return png[:33] + chunk(name, data) + png[33:]


def bomb(side: int) -> bytes:
    """One bit a pixel, all the same."""
    squeeze = zlib.compressobj(9)
    row = bytes(1 + -(-side // 8))
    rows = b"".join(squeeze.compress(row) for _ in range(side)) + squeeze.flush()
    return SIGNATURE + b"".join((
        chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)), chunk(b"IDAT", rows), chunk(b"IEND", b"")
    ))  # fmt: skip


def near(got: Any, wanted: tuple[int, int, int], by: int = 12) -> bool:
    return isinstance(got, tuple) and all(abs(a - b) <= by for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_good_picture_is_drawn_anew(form: str) -> None:
    body = saved(scene(), form, quality=95)
    picture = sanitise(body)
    assert (picture.width, picture.height, picture.source_format) == (96, 64, form.lower())
    assert picture.sha256 == hashlib.sha256(picture.png).hexdigest()
    image = reopened(body)
    assert near(image.getpixel((8, 32)), RED)
    assert near(image.getpixel((88, 32)), BLUE)
    assert picture == sanitise(body)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "RGB"])
def test_png_modes(mode: str) -> None:
    image = scene("L").convert("I").point(lambda v: v * 257).convert("I;16") if mode == "I;16" else scene(mode)
    wanted = scene("L").convert("RGB") if mode == "I;16" else image.convert("RGB")
    got = reopened(saved(image, "PNG"))
    assert max(ImageStat.Stat(ImageChops.difference(got, wanted)).mean) <= 1


def test_a_16_bit_png_in_colour() -> None:
    rows = b"".join(b"\x00" + struct.pack(">HHH", 0x8000, 0xFFFF, 0) * 64 for _ in range(64))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 16, 2, 0, 0, 0))
    body = SIGNATURE + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert near(reopened(body).getpixel((9, 9)), (128, 255, 0), by=1)


def test_a_16_bit_grey_png_with_a_transparent_key() -> None:
    rows = b"".join(b"\x00" + struct.pack(">H", 0x8000) * 64 for _ in range(64))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 16, 0, 0, 0, 0)) + chunk(b"tRNS", b"\x80\x00")
    body = SIGNATURE + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert near(reopened(body).getpixel((9, 9)), (128, 128, 128), by=1)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpeg_modes(mode: str) -> None:
    image = scene(mode)
    wanted = image.convert("RGB")
    assert max(ImageStat.Stat(ImageChops.difference(reopened(saved(image, "JPEG", quality=95)), wanted)).mean) <= 3


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_what_is_transparent_lies_on_white(form: str) -> None:
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((0, 0, 255, 128), (32, 0, 64, 64))
    got = reopened(saved(image, form, lossless=True))
    assert near(got.getpixel((4, 4)), (255, 255, 255), by=1)
    assert near(got.getpixel((60, 4)), (127, 127, 255), by=1)


def test_a_palette_with_a_transparent_colour_lies_on_white() -> None:
    image = Image.new("P", (64, 64), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    assert near(reopened(saved(image, "PNG", transparency=1)).getpixel((4, 4)), (255, 255, 255), by=1)


# what a camera stores is the upright scene, turned by this Image.Transpose; see EXIF 2.3, tag 274
@pytest.mark.parametrize(("orientation", "turn"), [(1, None), (2, 0), (3, 3), (4, 1), (5, 5), (6, 2), (7, 6), (8, 4)])
def test_it_is_turned_upright_and_nothing_of_its_metadata_is_left(orientation: int, turn: int | None) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "Kamera"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    stored = scene() if turn is None else scene().transpose(Image.Transpose(turn))
    body = saved(stored, "JPEG", quality=95, exif=exif, comment=b"secret", xmp=b"<x>secret</x>")
    assert b"Kamera" in body
    picture = sanitise(body)
    assert chunks(picture.png) == [b"IHDR", b"IDAT", b"IEND"]
    image = reopened(body)
    assert image.size == (96, 64)
    assert near(image.getpixel((8, 32)), RED)
    assert near(image.getpixel((88, 32)), BLUE)
    assert near(image.getpixel((40, 60)), WHITE)


def test_metadata_of_png_and_webp_is_dropped() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Kamera"
    for body in (
        saved(scene(), "WEBP", exif=exif, xmp=b"secret"),
        saved(scene(), "PNG", exif=exif),
        saved(scene(), "PNG", icc_profile=b"no profile"),
        with_chunk(b"tEXt", b"prompt\x00secret"),
    ):
        assert chunks(sanitise(body).png) == [b"IHDR", b"IDAT", b"IEND"]


def test_damaged_exif_is_ignored() -> None:
    assert sanitise(saved(scene(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff\x99")).width == 96


def test_a_colour_profile_becomes_srgb() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    swapped = bytearray(profile.tobytes())
    for at in range(132, 132 + 12 * struct.unpack(">I", swapped[128:132])[0], 12):
        if bytes(swapped[at : at + 4]) in {b"rXYZ", b"bXYZ"}:
            swapped[at] = ord("b") if swapped[at] == ord("r") else ord("r")
    image = scene()
    assert near(reopened(saved(image, "PNG", icc_profile=profile.tobytes())).getpixel((8, 32)), RED, by=2)
    assert near(reopened(saved(image, "PNG", icc_profile=bytes(swapped))).getpixel((8, 32)), BLUE, by=2)
    assert near(reopened(saved(image, "PNG", icc_profile=b"no profile")).getpixel((8, 32)), RED, by=2)


def test_a_phone_photo_with_a_second_picture_in_it_is_the_photo() -> None:
    body = saved(scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (96, 64))], quality=95)
    assert sanitise(body).source_format == "jpeg"
    assert near(reopened(body).getpixel((8, 32)), RED)


def test_a_polyglot_loses_its_other_half() -> None:
    script = b"<html><script>alert(1)</script></html>"
    for body in (saved(scene(), "PNG") + script, with_chunk(b"tEXt", b"a\x00" + script)):
        assert script in body
        assert b"script" not in sanitise(body).png


@pytest.mark.parametrize(
    ("size", "kept"),
    [((64, 64), (64, 64)), ((512, 64), (512, 64)), ((4096, 4096), (2048, 2048)), ((11584, 1448), None)],
)
def test_sizes_at_the_limits(size: tuple[int, int], kept: tuple[int, int] | None) -> None:
    picture = sanitise(saved(Image.new("L", size, 99), "PNG", compress_level=1))
    assert picture.width * picture.height <= 4 * MEGAPIXEL
    assert picture.width <= 8 * picture.height
    assert kept is None or (picture.width, picture.height) == kept


def test_rounding_does_not_make_the_shape_too_long() -> None:
    assert picture_child.shrunk(Image.new("L", (800, 100)), 30_000).size == (488, 61)


@pytest.mark.parametrize(
    ("size", "why"),
    [
        ((63, 64), "64 or more"),
        ((64, 63), "64 or more"),
        ((520, 64), "8 times"),
        ((64, 520), "8 times"),
        ((4097, 4096), "16 megapixels"),
    ],
)
def test_sizes_beyond_the_limits(size: tuple[int, int], why: str) -> None:
    with pytest.raises(InvalidReference, match=why) as caught:
        sanitise(saved(Image.new("1", size), "PNG"))
    assert f"{size[0]}x{size[1]}" in caught.value.message


def test_a_bomb_is_refused_by_its_header() -> None:
    body = bomb(13300)
    assert len(body) < 25_000
    with pytest.raises(InvalidReference, match="13300x13300 pixels; at most 16 megapixels"):
        sanitise(body)


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP", b"iTXt"])
def test_bombs_in_metadata_are_refused(name: bytes) -> None:
    key = b"a\x00\x01\x00\x00\x00" if name == b"iTXt" else b"a\x00\x00"
    body = with_chunk(name, key + zlib.compress(bytes(40_000_000), 9))
    assert len(body) < 50_000
    with pytest.raises(InvalidReference, match="full of metadata"):
        sanitise(body)


def frames(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (64, 64), (6 * n, 0, 0)) for n in range(count)]


@pytest.mark.parametrize(("form", "why"), [("PNG", "animated"), ("WEBP", "animated"), ("GIF", "is a GIF")])
def test_animated_files_are_refused(form: str, why: str) -> None:
    first, *others = frames(40)
    with pytest.raises(InvalidReference, match=why):
        sanitise(saved(first, form, save_all=True, append_images=others))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "is empty"),
        (b"   ", "no image"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>', "SVG or HTML"),
        (b'\n <?xml version="1.0"?><svg/>', "SVG or HTML"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", "PostScript"),
        (b"%PDF-1.7", "a PDF"),
        (b"GIF89a\x01\x00\x01\x00", "a GIF"),
        (b"\x00\x00\x00\x20ftypheic", "HEIC"),
        (b"RIFF\x00\x00\x00\x00AVI ", "no image"),
        (b"P6 64 64 255\n" + bytes(64 * 64 * 3), "no image"),
    ],
)
def test_other_types_are_refused_by_content(body: bytes, why: str) -> None:
    with pytest.raises(InvalidReference, match=f"{why}.*Send a PNG, JPEG or WebP"):
        sanitise(body)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_half_a_file_and_a_mere_signature_are_refused(form: str) -> None:
    grain = Image.frombytes("RGB", (128, 128), hashlib.shake_256(b"grain").digest(128 * 128 * 3))
    body = saved(grain, form)
    for part in (body[: len(body) // 2], body[:40], body[:12]):
        with pytest.raises(InvalidReference, match="damaged, incomplete"):
            sanitise(part)


def test_too_many_bytes_are_refused_at_once() -> None:
    with pytest.raises(InvalidReference, match="20,971,520 are taken"):
        sanitise(SIGNATURE + bytes(MAX_BYTES))


def test_the_memory_of_the_caller_stays_where_it_is(tmp_path: Path) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(saved(Image.new("RGB", (4096, 4096), RED), "JPEG"))
    script = f"""
import resource, sys
from storage.pictures import sanitise
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
body, before = open({str(large)!r}, "rb").read(), peak()
assert sanitise(body).width == 2048
print(peak() - before)
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True, text=True)
    assert int(ran.stdout) < 30_000


def run_child(*arguments: str, body: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-I", str(CHILD), *arguments], input=body, capture_output=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_the_child_may_not_take_more_memory_than_it_is_given() -> None:
    body = saved(Image.new("RGB", (4096, 4096), RED), "JPEG")
    ran = run_child("15", str(128 * 2**20), str(16 * MEGAPIXEL), str(4 * MEGAPIXEL), body=body)
    assert b"too much memory" in ran.stdout
    assert ran.returncode == 1


def test_the_child_reads_nothing_but_the_three_formats() -> None:
    ran = run_child("15", str(2**30), str(MEGAPIXEL), str(MEGAPIXEL), body=saved(scene(), "GIF"))
    assert b"error" in ran.stdout


def test_a_child_whose_parent_is_gone_ends_itself() -> None:
    command = [sys.executable, "-I", str(CHILD), "0.2", str(2**30), "1", "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        assert child.wait(timeout=10) == -signal.SIGALRM


def test_a_child_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = tmp_path / "hanging.py"
    note = tmp_path / "pid"
    hanging.write_text(f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    monkeypatch.setattr(pictures, "_CHILD", hanging)
    with pytest.raises(InvalidReference, match="limits of time and memory"):
        sanitise(saved(scene(), "PNG"), seconds=1.0)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)
    assert sorted(tmp_path.iterdir()) == [hanging, note]


def test_a_child_that_crashes_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crashing = tmp_path / "crashing.py"
    crashing.write_text("import os; os.abort()")
    monkeypatch.setattr(pictures, "_CHILD", crashing)
    with pytest.raises(InvalidReference, match="could not be decoded"):
        sanitise(saved(scene(), "PNG"))


def test_no_child_to_be_had_is_no_fault_of_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    with pytest.raises(Unavailable):
        sanitise(saved(scene(), "PNG"))


def test_too_many_at_once_wait_their_turn_and_then_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "PATIENCE", 0.05)
    taken = [pictures._turns.acquire() for _ in range(pictures.CHILDREN)]
    try:
        with pytest.raises(Unavailable) as caught:
            sanitise(saved(scene(), "PNG"))
    finally:
        for _ in taken:
            pictures._turns.release()
    assert caught.value.retry_after
    assert sanitise(saved(scene(), "PNG")).width == 96


@pytest.mark.parametrize("kind", ["png", "jpeg", "jpg", "webp", "PNG"])
def test_a_data_uri_gives_its_bytes(kind: str) -> None:
    assert parse_data_uri(f"data:image/{kind};base64,{base64.b64encode(b'hello').decode()}") == b"hello"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("https://example.com/a.png", "must start with"),
        ("data:text/html;base64,aGVsbG8=", "must start with"),
        ("data:image/svg+xml;base64,aGVsbG8=", "must start with"),
        ("data:image/png,hello", "must start with"),
        (" data:image/png;base64,aGVsbG8=", "must start with"),
        ("data:image/png;charset=utf-8;base64,aGVsbG8=", "must start with"),
        ("data:image/png;base64,", "is empty"),
        ("data:image/png;base64,aGVsbG8", "not valid base64"),
        ("data:image/png;base64,aGVs bG8=", "not valid base64"),
        ("data:image/png;base64,aGVsbG8=\n", "not valid base64"),
        ("data:image/png;base64,aGVsbG8=AAAA", "not valid base64"),
        ("data:image/png;base64,aGVs-G8=", "not valid base64"),
        ("data:image/png;base64,aGVsbGä=", "not valid base64"),
        ("data:image/png;base64,\ud800AAA", "not valid base64"),
    ],
)
def test_a_data_uri_is_read_strictly(text: str, why: str) -> None:
    with pytest.raises(InvalidReference, match=why):
        parse_data_uri(text)


def test_a_data_uri_has_the_same_cap() -> None:
    with pytest.raises(InvalidReference, match="20,971,520 bytes"):
        parse_data_uri("data:image/png;base64," + "A" * (MAX_BYTES // 3 * 4 + 8))
