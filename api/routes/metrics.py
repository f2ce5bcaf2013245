"""``/metrics`` for Prometheus; with ``FLUXFARM_METRICS_TOKEN`` only for who knows it."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Header, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api.errors import problems
from api.farm import FarmPart
from fluxfarm.errors import Unauthorized

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text format"},
        **problems(401),
    },
)
def read_metrics(farm: FarmPart, authorization: Annotated[str, Header()] = "") -> Response:
    """Read this process's counters and how the farm stands."""
    token = farm.settings.metrics_token.get_secret_value()
    if token and not secrets.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
        raise Unauthorized("The metrics need 'Authorization: Bearer' with the farm's FLUXFARM_METRICS_TOKEN.")
    return Response(farm.metrics.text(), media_type=CONTENT_TYPE_LATEST)
