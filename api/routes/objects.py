"""Objects of the local store behind their signed links; an S3 serves its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path as File
from typing import Annotated, Final

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse

from api.errors import error_response, problems
from api.farm import FarmPart
from fluxfarm.errors import NotFound, RangeNotSatisfiable
from storage.objects_local import LocalStore, ServedObject

CHUNK: Final = 256 * 1024  #: bytes that are read at a time
_RANGE: Final = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))")
_BINARY: Final = {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}

router = APIRouter(tags=["assets"])


@router.get(
    "/objects/{key:path}",
    operation_id="openObject",
    responses={
        200: {"description": "The object", **_BINARY},
        206: {"description": "The bytes that were asked for", **_BINARY},
        304: {"description": "The object is the one that the caller has"},
        **problems(403, 404, 416),
    },
    response_class=StreamingResponse,
)
def open_object(
    farm: FarmPart,
    request: Request,
    key: str,
    wanted: Annotated[str, Header(alias="Range")] = "",
    known: Annotated[str, Header(alias="If-None-Match")] = "",
    unchanged: Annotated[str, Header(alias="If-Range")] = "",
) -> Response:
    """The bytes behind a temporary link.

    The link itself is the permission; one byte range can be asked for.
    """
    if not isinstance(farm.store, LocalStore):
        raise NotFound("There is no such object; this farm keeps its objects elsewhere.")
    served = farm.store.open_link(key, request.query_params)
    tag = f'"{served.path.stem}"'  # an object never changes, and its name is random
    headers = {
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=3600",
        "Content-Disposition": served.disposition,
    }
    if tag in known or known.strip() == "*":
        return Response(status_code=304, headers=headers)
    try:
        span = byte_range(wanted, served.size) if unchanged in ("", tag) else None
    except RangeNotSatisfiable as error:
        return error_response(error, request.scope, {"Content-Range": f"bytes */{served.size}"})
    return _send(served, span, headers)


def byte_range(header: str, size: int) -> range | None:
    """The bytes that a Range header names; None: all. Several ranges, or a unit other than bytes, count as none.

    Raises:
        RangeNotSatisfiable: it starts behind the last byte.
    """
    found = _RANGE.fullmatch(header.replace(" ", ""))
    if found is None:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        span = range(max(0, size - int(suffix)), size)
    else:
        span = range(int(first), min(size, int(last) + 1) if last else size)
        if last and int(last) < int(first):
            return None
    if not span:
        raise RangeNotSatisfiable(f"The object has {size:,} bytes; the range lies behind them.")
    return span


def _send(served: ServedObject, span: range | None, headers: dict[str, str]) -> Response:
    part = span if span is not None else range(served.size)
    more = {"Content-Length": str(len(part))}
    if span is not None:
        more["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{served.size}"
    return StreamingResponse(
        _read(served.path, part), 206 if span is not None else 200, headers | more, media_type=served.content_type
    )


def _read(path: File, part: range) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(part.start)
        left = len(part)
        while left > 0 and (chunk := file.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk
