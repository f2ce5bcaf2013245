"""The dashboard's own style and scripts, read once; their address changes with their content, so they may be kept."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response

from fluxfarm.errors import NotFound

FOLDER: Final = Path(__file__).with_name("static")
TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

router = APIRouter()


@dataclass(frozen=True, slots=True)
class Static:
    """One file."""

    body: bytes
    packed: bytes
    media_type: str


FILES: Final = {
    path.name: Static(path.read_bytes(), gzip.compress(path.read_bytes(), 9, mtime=0), TYPES[path.suffix])
    for path in sorted(FOLDER.iterdir())
    if path.suffix in TYPES
}
VERSION: Final = hashlib.sha256(b"".join(name.encode() + one.body for name, one in FILES.items())).hexdigest()[:12]


@router.get("/static/{version}/{name}")
async def static(request: Request, version: str, name: str) -> Response:
    """A file of the dashboard; it needs no session."""
    found = FILES.get(name)
    if found is None:
        raise NotFound("There is no such file.")
    # an old address still works while the farm is changed, and is not kept
    keep = "public, max-age=31536000, immutable" if version == VERSION else "no-cache"
    headers = {"Cache-Control": keep, "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.packed, headers=headers | {"Content-Encoding": "gzip"}, media_type=found.media_type)
    return Response(found.body, headers=headers, media_type=found.media_type)
