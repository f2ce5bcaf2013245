"""The description of the API: what FastAPI cannot see, because bodies are read strictly, is put in here."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from api.auth import API_KEY, needed
from api.dialects.cloudflare import CloudflareRun
from api.dialects.fal import FalInput
from api.dialects.native_body import NewJob
from api.dialects.native_errors import ProblemDetails
from api.dialects.one_min import Feature
from api.dialects.openai import ImagesCall
from api.dialects.replicate import NewPrediction
from api.errors import MEANINGS
from api.idempotency import REPLAYED
from api.routes.batches import NewBatch
from api.routes.campaign_reviews import Picks, Review
from api.routes.campaigns import Changes
from api.routes.keys import NewKey, Rotation
from api.routes.providers import OwnKey
from api.routes.retries import RetryMany
from api.routes.shares import NewShare
from api.routes.tenants import NewTenant, TenantChange
from api.routes.webhooks import NewWebhook
from fluxfarm.campaigns.spec import Spec
from fluxfarm.errors import BadRequest, IdempotencyInFlight, IdempotencyKeyReused, Unauthorized

_BODIES: Final[tuple[type[BaseModel], ...]] = (
    NewJob,
    NewKey,
    Rotation,
    NewTenant,
    TenantChange,
    RetryMany,
    NewWebhook,
    Spec,
    Changes,
    Review,
    Picks,
    NewShare,
    OwnKey,
    NewBatch,
    ImagesCall,
    ProblemDetails,
    Feature,
    CloudflareRun,
    FalInput,
    NewPrediction,
)
_REPLAYED: Final = {
    "description": "`true` when the `Idempotency-Key` came before.",
    "schema": {"type": "string"},
}
_NOT_OURS: Final = ("HTTPValidationError", "ValidationError")
_WITH_SLASHES: Final = ("key", "id", "model", "endpoint")  #: parameters that take the rest of a path
_API_KEY: Final = {"type": "apiKey", "in": "header", "name": API_KEY, "description": "The same key"}
_PARAMETER: Final = re.compile(r"\\\{(\w+)\\\}")
_DESCRIPTION: Final = (
    "Accepts jobs, renders them with FLUX.2 and gives the pictures back through temporary links. `POST /v1/jobs` "
    "answers 202 once the job is stored; read it, wait for it with `?wait=`, or follow its events. Every error is "
    "`application/problem+json` with a stable `code`."
)


def describer(title: str, version: str, routes: Sequence[BaseRoute]) -> Callable[[], dict[str, Any]]:
    """What ``app.openapi`` is set to; the description is made once, and is the same for every application."""

    @cache
    def describe() -> dict[str, Any]:
        return _describe(get_openapi(title=title, version=version, description=_DESCRIPTION, routes=routes))

    return describe


def _describe(found: dict[str, Any]) -> dict[str, Any]:
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            if "security" in operation:
                scope = needed(method.upper(), path).value
                operation["security"] = [{"bearer": [scope]}, {"apiKey": [scope]}]
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]  # invalid parameters are a 400 here
            if any(parameter["name"] == "Idempotency-Key" for parameter in operation.get("parameters", ())):
                _describe_replays(operation["responses"])
    components: dict[str, Any] = found["components"]
    components["securitySchemes"]["apiKey"] = _API_KEY
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    for name in _NOT_OURS:
        schemas.pop(name, None)
    _, ours = models_json_schema(
        [(model, "validation") for model in _BODIES], ref_template="#/components/schemas/{model}"
    )
    schemas.update(ours["$defs"])
    return found


def _describe_replays(responses: dict[str, Any]) -> None:
    """What a call with an ``Idempotency-Key`` may come to besides, in the form of its other errors."""
    content = responses[str(Unauthorized.status)]["content"]
    for status in (BadRequest.status, IdempotencyInFlight.status, IdempotencyKeyReused.status):
        responses.setdefault(str(status), {"description": MEANINGS[status], "content": content})
    for name, response in responses.items():
        if name.startswith("2"):
            response.setdefault("headers", {})[REPLAYED] = _REPLAYED


class Methods:
    """Which methods a path takes, for the ``Allow`` header: a router alone names those of its first match."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._table: list[tuple[re.Pattern[str], set[str]]] = []

    def of(self, path: str) -> set[str]:
        """The methods, in capitals; HEAD goes with GET."""
        if not self._table:
            self._table = [
                (_pattern(template), _names(calls)) for template, calls in self._app.openapi()["paths"].items()
            ]
        return next((names for pattern, names in self._table if pattern.fullmatch(path)), {"GET", "HEAD"})


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(_PARAMETER.sub(lambda m: ".+" if m[1] in _WITH_SLASHES else "[^/]+", re.escape(template)))


def _names(calls: dict[str, Any]) -> set[str]:
    names = {name.upper() for name in calls}
    return names | {"HEAD"} if "GET" in names else names
