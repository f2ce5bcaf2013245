"""What a picture from outside must pass before the farm keeps it: it is drawn anew, and the original is thrown away.

Decoders are where a hostile file bites, so Pillow runs in a child process with a time and a memory limit
(``picture_child.py``), one per picture: nothing that a file breaks outlives it, and no two tenants share a process.
What is kept is a plain sRGB PNG of at most 4 megapixels (the pipelines scale a reference to 1) without metadata, turned
upright, transparency laid on white.

Cost of ``sanitise`` on a quiet 2-core machine: 50 ms for a picture of 64 x 64 pixels (so much is the process itself),
130 to 155 ms at 1 megapixel, 350 ms at 4, 0.65 (JPEG) to 1.0 s (lossless WebP) at 16. A pool of children would save the
50 ms and lose the clean start.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import re
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fluxfarm.errors import InvalidReference, Unavailable

MEGAPIXEL: Final = 1024 * 1024
MAX_BYTES: Final = 20 * 2**20
MAX_PIXELS: Final = 16 * MEGAPIXEL  #: of the file, judged by its header
KEPT_PIXELS: Final = 4 * MEGAPIXEL  #: of what is stored; more is scaled down
MEMORY: Final = 768 * 2**20  #: bytes of address space for a child; the largest picture needs 384 MB (WebP)
SECONDS: Final = 15.0  #: for a child, start to end
CHILDREN: Final = 4  #: at a time in one process, so that a burst of uploads cannot take the machine's memory
PATIENCE: Final = 20.0  #: seconds that a picture waits for its turn

_CHILD: Final = Path(__file__).with_name("picture_child.py")
_DATA_URI: Final = re.compile(r"data:image/(?:png|jpeg|jpg|webp);base64,", re.IGNORECASE)
_OTHERS: Final = {
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"II*\x00": "a TIFF",
    b"MM\x00*": "a TIFF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"%PDF": "a PDF",
    b"<": "SVG or HTML",
    b"\xef\xbb\xbf<": "SVG or HTML",
}
_turns: Final = threading.BoundedSemaphore(CHILDREN)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that is safe to keep: sRGB PNG without metadata, size in pixels, hex SHA-256 of the PNG."""

    png: bytes
    width: int
    height: int
    sha256: str
    source_format: str


def sanitise(body: bytes, *, seconds: float = SECONDS) -> Picture:
    """Draw a stranger's PNG, JPEG or WebP anew; what it is called or declared as does not count, its content does.

    Blocks for the time of a process start and a decode, ``seconds`` at most.

    Raises:
        InvalidReference: no such picture, animated, damaged, or outside the limits of this module.
        Unavailable: no child could be started in time.
    """
    if len(body) > MAX_BYTES:
        raise InvalidReference(
            f"The image has {len(body):,} bytes; at most {MAX_BYTES:,} are taken. Scale it down or save it as JPEG."
        )
    _sniff(body)
    head, _, png = _run_child(body, seconds).partition(b"\n")
    try:
        reply = json.loads(head)
    except ValueError:
        raise InvalidReference(
            "The image could not be decoded within the limits of time and memory. Save it anew as PNG or JPEG."
        ) from None
    if "error" in reply:
        raise InvalidReference(f"The image cannot be used. {reply['error']}")
    digest = hashlib.sha256(png).hexdigest()
    return Picture(png, int(reply["width"]), int(reply["height"]), digest, str(reply["source_format"]))


def parse_data_uri(text: str) -> bytes:
    """The bytes of ``data:image/png;base64,…`` (also jpeg, webp); strict base64, no blanks, at most ``MAX_BYTES``.

    Raises:
        InvalidReference: another form, another type, damaged or too long.
    """
    prefix = _DATA_URI.match(text)
    if prefix is None:
        raise InvalidReference("A data URI must start with 'data:image/png;base64,' (or jpeg, webp).")
    if len(text) - prefix.end() > -(-MAX_BYTES // 3) * 4:
        raise InvalidReference(f"The data URI holds more than {MAX_BYTES:,} bytes. Scale the image down or upload it.")
    try:
        body = binascii.a2b_base64(text[prefix.end() :].encode("ascii"), strict_mode=True)
    except ValueError:  # binascii.Error and UnicodeEncodeError are both kinds of it
        raise InvalidReference("The data URI is not valid base64; send it whole, padded and without blanks.") from None
    if not body:
        raise InvalidReference("The data URI is empty; put the image's base64 behind the comma.")
    return body


def _sniff(body: bytes) -> None:
    if body.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")) or (body[:4] == b"RIFF" and body[8:12] == b"WEBP"):
        return
    start = body[:256].lstrip()
    found = next((name for magic, name in _OTHERS.items() if start.startswith(magic)), "no image that is known here")
    if body[4:8] == b"ftyp":
        found = "HEIC, AVIF or a video"
    raise InvalidReference(f"The file is {found if body else 'empty'}. Send a PNG, JPEG or WebP.")


def _run_child(body: bytes, seconds: float) -> bytes:
    """What the child wrote; empty when it crashed or was killed for its time or memory."""
    # -I: neither the environment nor the working folder can slip a module in.
    command = [sys.executable, "-I", str(_CHILD), str(seconds), str(MEMORY), str(MAX_PIXELS), str(KEPT_PIXELS)]
    if not _turns.acquire(timeout=PATIENCE):
        raise Unavailable("Too many images are being read at the moment.", retry_after=PATIENCE)
    try:
        return subprocess.run(  # noqa: S603 - the command is ours, the picture goes in by stdin
            command, input=body, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=seconds, check=False
        ).stdout
    except subprocess.TimeoutExpired:
        return b""
    except OSError as error:
        raise Unavailable("No process could be started to read the image.", retry_after=PATIENCE) from error
    finally:
        _turns.release()
