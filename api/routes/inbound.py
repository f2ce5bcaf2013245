"""Webhooks of providers: a hint that a call is over. They bring a lost ticket back and wake who waits; no more.

The raw bytes are verified before anything is read. What a webhook says of the result is not believed: the worker asks
the provider by its own key.
"""

from __future__ import annotations

import time
from typing import Final
from uuid import UUID

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.bodies import capped
from api.errors import problems
from api.farm import Farm, FarmPart
from fluxfarm.errors import FluxfarmError, NotFound, Unavailable
from fluxfarm.inbound import Arrival, check_fal, check_replicate, usual_ticket
from fluxfarm.jobs import JobType
from fluxfarm.remotes import Remote
from storage.remote_records import RemoteCall
from storage.repository import calls

LARGEST: Final = 8 * 2**20  #: bytes; a provider may send the picture along

router = APIRouter(prefix="/v1/inbound", tags=["providers"])
log = structlog.get_logger()


@router.post("/{provider}/{nonce}", name="receiveWebhook", status_code=204, responses=problems(400, 403, 404, 413, 503))
async def receive(farm: FarmPart, request: Request, provider: str, nonce: UUID) -> Response:
    """Take a provider's webhook about one call. It needs no key but the provider's signature."""
    body = b"".join([part async for part in capped(request, LARGEST)])
    headers = {name.lower(): value for name, value in request.headers.items()}
    await run_in_threadpool(_take, farm, provider, nonce, headers, body)
    return Response(status_code=204)


def _take(farm: Farm, provider: str, nonce: UUID, headers: dict[str, str], body: bytes) -> None:
    remote = farm.remotes.get(provider)
    if remote is None:
        raise NotFound("There is no such webhook.")
    arrival = _check(farm, remote, headers, body)
    with farm.database.transaction() as session:
        call = calls.read(session, nonce)
        if call is None or call.provider != provider:
            raise NotFound("There is no such call.")
        if not calls.take_event(session, provider, arrival.event, nonce):
            return  # a replay
        if call.ticket is None:
            ticket = _ticket(remote, call, arrival.remote_id)
            if calls.submitted(session, nonce, ticket):
                log.info("lost_ticket_found", provider=provider, job=str(call.job_uuid))
        calls.hint(session, call)


def _check(farm: Farm, remote: Remote, headers: dict[str, str], body: bytes) -> Arrival:
    match remote.protocol:
        case "fal":
            return _check_fal(farm, headers, body)
        case "replicate":
            return check_replicate(headers, body, farm.settings.replicate_webhook_secret, time.time())
        case _:
            raise NotFound(f"{remote.name} sends no webhooks here.")


def _check_fal(farm: Farm, headers: dict[str, str], body: bytes) -> Arrival:
    """With the keys that are known; a signature of none of them may be of a key that is new."""
    try:
        return check_fal(headers, body, _keys(farm, fresh=False), time.time())
    except FluxfarmError:
        return check_fal(headers, body, _keys(farm, fresh=True), time.time())


def _keys(farm: Farm, *, fresh: bool) -> tuple[Ed25519PublicKey, ...]:
    try:
        return farm.jwks.keys(fresh=fresh)
    except FluxfarmError as error:
        raise Unavailable("The provider's keys cannot be read now.", retry_after=60.0) from error


def _ticket(remote: Remote, call: RemoteCall, remote_id: str) -> dict[str, str]:
    offer = remote.offer(call.model)
    endpoint = "" if offer is None else offer.endpoints.get(JobType.IMAGE_GENERATOR, "")
    return usual_ticket(remote.protocol, remote.base_url, endpoint, remote_id)
