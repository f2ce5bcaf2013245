"""The outputs of predictions behind their signed links, which take a token beside them as Replicate's own do."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request, Response

from api.dialects.replicate_errors import ReplicateError
from api.errors import errors_as
from api.farm import FarmPart
from storage.delivery import PATH

_BINARY: Final[dict[str, Any]] = {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}

router = APIRouter(prefix=PATH, tags=["Replicate"])


@router.get(
    "/{key:path}",
    operation_id="openPredictionOutput",
    responses={200: {"description": "The picture", **_BINARY}, **errors_as(ReplicateError, 403, 404)},
    response_class=Response,
)
def open_output(farm: FarmPart, request: Request, key: str) -> Response:
    """The picture behind a temporary link; the link itself is the permission."""
    granted = farm.delivery.open(key, dict(request.query_params))
    headers = {"Content-Disposition": granted.disposition, "Cache-Control": "private, max-age=3600"}
    return Response(farm.store.get(key), headers=headers, media_type=granted.content_type)
