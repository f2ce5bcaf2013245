"""Probes: alive is not ready, and ready does not need every part."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Literal

from anyio import move_on_after, to_thread
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from api.errors import problems
from api.farm import FarmPart
from api.replies import reply
from fluxfarm.errors import BrokerUnavailable, DatabaseUnavailable, FluxfarmError, StoreUnavailable

PATIENCE: Final = 3.0  #: seconds for each part

router = APIRouter(tags=["health"])

Verdict = Literal["ok", "database_unavailable", "broker_unavailable", "store_unavailable"]


class Health(BaseModel):
    """The process lives."""

    status: Literal["ok"] = "ok"


class Parts(BaseModel):
    """``ok``, or the code of what is wrong."""

    database: str
    broker: str
    store: str


class Readiness(BaseModel):
    """Whether jobs can be accepted (``ready``, ``degraded``) or not (``down``)."""

    status: Literal["ready", "degraded", "down"] = Field(
        description="degraded: jobs are accepted, but the broker or the object store is away."
    )
    parts: Parts


@router.get("/healthz", operation_id="alive", responses={200: {"model": Health}})
async def alive() -> Response:
    """The process lives."""
    return reply(Health())


@router.get(
    "/readyz",
    operation_id="ready",
    responses={
        200: {"model": Readiness},
        **problems(),
        503: {"model": Readiness, "description": "The database does not answer"},
    },
)
async def ready(farm: FarmPart) -> Response:
    """Jobs can be accepted."""
    database, broker, store = await asyncio.gather(
        _verdict(farm.database.check, DatabaseUnavailable.code),
        _verdict(farm.queue.check, BrokerUnavailable.code),
        _verdict(farm.store.check, StoreUnavailable.code),
    )
    parts = Parts(database=database, broker=broker, store=store)
    if database != "ok":
        return reply(Readiness(status="down", parts=parts), 503, {"Retry-After": "2"})
    whole = {broker, store} == {"ok"}
    return reply(Readiness(status="ready" if whole else "degraded", parts=parts))


async def _verdict(check: Callable[[], None], code: str) -> str:
    with move_on_after(PATIENCE):
        try:
            await to_thread.run_sync(check, abandon_on_cancel=True)
        except FluxfarmError as error:
            return error.code
        return "ok"
    return code
