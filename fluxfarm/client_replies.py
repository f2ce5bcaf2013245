"""What the farm says of its models, workers, keys and references, as the client hands it on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, TypeVar
from uuid import UUID

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from fluxfarm.airecord import AiRecord
from fluxfarm.errors import Unavailable

Model = TypeVar("Model", bound=BaseModel)


class _Reply(BaseModel):
    """Fields that a newer farm adds are kept, so that ``--json`` shows them."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="allow", protected_namespaces=()
    )


class ModelReply(_Reply):
    """A model of the catalogue: ``local`` when the farm is set up to render it, ``ready`` when a worker does now."""

    id: str
    name: str = ""
    licence: str = ""
    local: bool = False
    ready: bool = False


class WorkerReply(_Reply):
    """A process that renders."""

    name: str
    state: str = ""
    provider: str = ""
    device: str = ""
    slots: int = 0
    models: list[str] = []
    heartbeat_at: datetime | None = None


class KeyReply(_Reply):
    """An API key; ``secret`` is its text, told only once, when it is made."""

    id: UUID
    name: str
    prefix: str = ""
    scopes: list[str] = []
    rate_limit: int | None = None
    replaced_by: UUID | None = None
    secret: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


class TenantReply(_Reply):
    """Who shares the farm, and what the operator set for it."""

    id: UUID
    name: str
    weight: float = 1
    commercial: bool = False
    models: list[str] | None = None
    max_running: int | None = None
    rate_limit: int | None = None


class WebhookReply(_Reply):
    """An endpoint that is told of the ends of jobs; ``secret`` verifies its messages, told when it is made."""

    id: str
    url: str
    secret: str | None = None
    created_at: datetime | None = None
    disabled_at: datetime | None = None
    disabled_reason: str | None = None


class DeliveryReply(_Reply):
    """One message to an endpoint; ``job`` is None for a test."""

    id: str
    type: str = ""
    state: str = ""
    job: UUID | None = None


class ReferenceReply(_Reply):
    """An uploaded reference; ``id`` is what ``images`` takes."""

    id: str
    width: int | None = None
    height: int | None = None


class VerifyReply(_Reply):
    """What a picture says of its making; ``watermark``: its pixels carry the farm's; ``job`` made this very file."""

    verdict: Literal["made_here", "signed_elsewhere", "changed", "unsigned"]
    generator: str | None = None
    model: str | None = None
    source_type: str | None = None
    signed_by: str | None = None
    problems: list[str] = []
    watermark: bool | None = None
    job: UUID | None = None


class SpentReply(_Reply):
    """USD and jobs under one name."""

    name: str
    amount: Decimal
    jobs: int = 0


class UsageReply(_Reply):
    """Where a tenant stands, in USD; ``budget`` None is no limit."""

    budget: Decimal | None = None
    left: Decimal | None = None
    reserved: Decimal
    spent: Decimal
    by_provider: list[SpentReply] = []
    by_campaign: list[SpentReply] = []
    by_day: list[SpentReply] = []


class BreakerReply(_Reply):
    """Whether a provider is called: closed, open or half-open."""

    state: str
    reason: str = ""


class ProviderReply(_Reply):
    """How a provider did with a model; the farm's own workers are ``local`` with no model."""

    provider: str
    model: str | None = None
    attempts: int = 0
    success: float | None = None
    p50: float | None = None
    p95: float | None = None
    price: Decimal | None = None
    breaker: BreakerReply | None = None


class SkippedJob(_Reply):
    """A job that cannot be tried again as it stands; ``code`` says why."""

    job: UUID
    code: str


class RetriedReply(_Reply):
    """What one bulk retry came to; ``next_cursor`` is None when nothing more fits."""

    jobs: list[UUID]
    skipped: list[SkippedJob] = []
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, the newest first, and where the next page starts; None after the last."""

    data: Sequence[AiRecord]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Rendered:
    """A job that went well, and the bytes of its pictures in their order."""

    record: AiRecord
    images: Sequence[bytes]


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise _no_farm(response)
    return body


def _no_farm(response: httpx.Response) -> Unavailable:
    place = response.url.copy_with(query=None)
    return Unavailable(f"{place} answered, but not as a farm of this version does; check FLUXFARM_URL.")


def _model(kind: type[Model], value: object, response: httpx.Response) -> Model:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _no_farm(response) from error


def read_reply(kind: type[Model], response: httpx.Response) -> Model:
    """The object that the reply is.

    Raises:
        Unavailable: the reply is not that; somebody else answered.
    """
    return _model(kind, _json(response), response)


def read_record(response: httpx.Response) -> AiRecord:
    """The record in ``{"aiRecord": {...}}``."""
    return _model(AiRecord, _json(response).get("aiRecord"), response)


def read_model(kind: type[Model], response: httpx.Response, name: str | None = None) -> Model:
    """The object in ``{name: {...}}``, or the whole reply."""
    found = _json(response)
    return _model(kind, found if name is None else found.get(name), response)


def read_rows(kind: type[Model], response: httpx.Response) -> list[Model]:
    """The objects in ``{"data": [...]}``."""
    rows = _json(response).get("data")
    if not isinstance(rows, list):
        raise _no_farm(response)
    return [_model(kind, row, response) for row in rows]


def read_page(response: httpx.Response) -> Page:
    """One page of records."""
    return Page(read_rows(AiRecord, response), _json(response).get("nextCursor"))
