"""Webhooks: where the farm tells of the ends of jobs, and what became of each message."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal
from uuid import UUID

from anyio import to_thread
from fastapi import APIRouter, Query, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.airecords import CURSOR, make_cursor, read_cursor
from api.auth import Secret, allowed
from api.bodies import JsonBody, parse_json
from api.creation import Creation, Making
from api.errors import problems
from api.farm import Farm, FarmPart
from api.replies import reply
from api.strict import Strict, read
from api.targets import checked_url, look_up, new_secret
from fluxfarm.airecord import Moment
from fluxfarm.scopes import Scope
from fluxfarm.webhooks import MAX_URL, Form
from storage.repository import endpoints, tenants
from storage.webhook_records import Delivery, Endpoint

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "shop": {"summary": "An endpoint", "value": {"url": "https://shop.example.com/hooks/fluxfarm"}}
}


class NewWebhook(Strict):
    """An endpoint to make."""

    url: str = Field(
        min_length=1,
        max_length=MAX_URL,
        description="https, port 443, a host on the public Internet; redirects are not followed.",
        json_schema_extra={"format": "uri", "pattern": "^https://"},
    )


class _Reply(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, from_attributes=True)


class WebhookReply(_Reply):
    """An endpoint."""

    id: str = Field(description="Name it, or its URL, as `webhook` of a job.", examples=["wh_5fQk0cJm3yT9bW1xV7dZpA"])
    url: str
    form: Form = Field(description="In whose words its messages are; a job of a dialect that names a URL makes it so.")
    created_at: Moment
    disabled_at: Moment | None = Field(description="Since when nothing is sent to it.")
    disabled_reason: str | None
    paused_until: Moment | None = Field(description="Until when it asked to be left alone.")


class SecretReply(BaseModel):
    """What signs the messages of an endpoint."""

    id: str
    secret: str = Field(description="Of Standard Webhooks, `whsec_…`.")


class FreshWebhookReply(WebhookReply):
    """An endpoint with its new secret."""

    secret: str = Field(description="Of Standard Webhooks, `whsec_…`.")


class WebhookList(BaseModel):
    """Every endpoint, the newest first."""

    data: list[WebhookReply]


class DeliveryAttemptReply(_Reply):
    """One POST."""

    number: int
    started_at: Moment
    status: int | None = Field(description="Of HTTP; null when there was no answer.")
    error: str | None = Field(description="`http_500`, `unreachable_url`, `forbidden_url`, `sender_lost`, …")
    detail: str | None
    ms: int | None = Field(description="Milliseconds; null while it runs.")


class DeliveryReply(_Reply):
    """One message, from the end of its job until it is delivered."""

    id: str = Field(description="The `webhook-id`; the same on every attempt and replay.")
    type: str = Field(
        description="`job.started`, `.succeeded`, `.failed`, `.canceled`, `campaign.done`, `.cancelled` or `test`."
    )
    job_uuid: UUID | None = Field(serialization_alias="job")
    campaign_id: UUID | None = Field(serialization_alias="campaign", description="Of whose end it tells.")
    state: Literal["pending", "delivered", "failed"]
    next_attempt_at: Moment | None = Field(description="Null when it is over.")
    last_error: str | None
    created_at: Moment
    ended_at: Moment | None
    log: list[DeliveryAttemptReply] = Field(serialization_alias="attempts")


class DeliveryPage(_Reply):
    """Some deliveries, the newest first."""

    data: list[DeliveryReply]
    next_cursor: str | None


class Listing(BaseModel):
    """Which deliveries, and how many."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["pending", "delivered", "failed"] | None = None
    cursor: str | None = Field(
        None, max_length=64, description="`nextCursor` of the page before.", json_schema_extra={"pattern": CURSOR}
    )
    limit: int = Field(50, ge=1, le=200)


@router.post(
    "",
    operation_id="createWebhook",
    status_code=201,
    responses={201: {"model": FreshWebhookReply}, **problems(400, 401, 403, 409, 413, 415)},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/NewWebhook"}, "examples": EXAMPLES}
            },
        }
    },
)
async def create_webhook(farm: FarmPart, secret: Secret, creation: Making, body: JsonBody) -> Response:
    """Make an endpoint.

    Its messages are signed as Standard Webhooks 1.0.0 says, with the secret in this reply. A URL has one endpoint.
    """
    url = await run_in_threadpool(_asked, farm, creation, body)
    await to_thread.run_sync(look_up, farm, url, "url", limiter=farm.pictures)
    return await run_in_threadpool(_create, farm, secret, creation, url)


def _asked(farm: Farm, creation: Creation, body: bytes) -> str:
    creation.enter(Scope.RENDER, body)
    return checked_url(farm, read(NewWebhook, parse_json(body)).url, "url")


def _create(farm: Farm, secret: str, creation: Creation, url: str) -> Response:
    fresh = new_secret()
    with farm.database.transaction() as session:
        caller = allowed(tenants.authenticate(session, secret), Scope.RENDER)
        endpoint = endpoints.create(session, caller.tenant_id, url, farm.sealer.seal(fresh))
        return creation.keep(session, reply(_with_secret(endpoint, fresh), 201))


@router.get("", operation_id="listWebhooks", responses={200: {"model": WebhookList}, **problems(401, 403)})
def list_webhooks(farm: FarmPart, secret: Secret) -> Response:
    """List the endpoints."""
    with farm.database.transaction() as session:
        caller = allowed(tenants.authenticate(session, secret), Scope.READ)
        found = endpoints.list_all(session, caller.tenant_id)
    return reply(WebhookList(data=[WebhookReply.model_validate(endpoint) for endpoint in found]))


@router.get(
    "/{webhook}", operation_id="readWebhook", responses={200: {"model": WebhookReply}, **problems(401, 403, 404)}
)
def read_webhook(farm: FarmPart, secret: Secret, webhook: str) -> Response:
    """Read an endpoint."""
    with farm.database.transaction() as session:
        caller = allowed(tenants.authenticate(session, secret), Scope.READ)
        endpoint = endpoints.read(session, caller.tenant_id, webhook)
    return reply(WebhookReply.model_validate(endpoint))


@router.get(
    "/{webhook}/secret",
    operation_id="readWebhookSecret",
    responses={200: {"model": SecretReply}, **problems(401, 403, 404, 409)},
)
def read_secret(farm: FarmPart, secret: Secret, webhook: str) -> Response:
    """Read the newest secret, for an endpoint that a job made by naming its URL."""
    with farm.database.transaction() as session:
        caller = allowed(tenants.authenticate(session, secret), Scope.RENDER)
        endpoint = endpoints.read(session, caller.tenant_id, webhook)
        endpoints.check_own_secret(endpoint)
    return reply(SecretReply(id=endpoint.id, secret=farm.sealer.open(endpoint.secrets[0]["sealed"])))


@router.post(
    "/{webhook}/rotate",
    operation_id="rotateWebhookSecret",
    responses={200: {"model": FreshWebhookReply}, **problems(401, 403, 404, 409)},
)
def rotate_secret(farm: FarmPart, creation: Making, webhook: str) -> Response:
    """Sign with a new secret; for 24 hours each message bears the signatures of the old and of the new one."""
    fresh = new_secret()
    with farm.database.transaction() as session:
        caller = creation.begin(session, Scope.RENDER)
        endpoint = endpoints.rotate(session, caller.tenant_id, webhook, farm.sealer.seal(fresh))
        return creation.keep(session, reply(_with_secret(endpoint, fresh)))


@router.post(
    "/{webhook}/enable",
    operation_id="enableWebhook",
    responses={200: {"model": WebhookReply}, **problems(401, 403, 404)},
)
def enable_webhook(farm: FarmPart, secret: Secret, webhook: str) -> Response:
    """Send again to an endpoint that had answered 410; what failed meanwhile is sent by a replay only."""
    with farm.database.transaction() as session:
        caller = allowed(tenants.authenticate(session, secret), Scope.RENDER)
        endpoint = endpoints.enable(session, caller.tenant_id, webhook)
    farm.notifier.hurry(endpoint.id)
    return reply(WebhookReply.model_validate(endpoint))


@router.delete("/{webhook}", operation_id="deleteWebhook", status_code=204, responses=problems(401, 403, 404))
def delete_webhook(farm: FarmPart, secret: Secret, webhook: str) -> Response:
    """Delete an endpoint with its secrets and its log; what was not delivered yet is not sent."""
    with farm.database.transaction() as session:
        caller = allowed(tenants.authenticate(session, secret), Scope.RENDER)
        endpoints.remove(session, caller.tenant_id, webhook)
    return Response(status_code=204)


@router.post(
    "/{webhook}/test",
    operation_id="testWebhook",
    status_code=202,
    responses={202: {"model": DeliveryReply}, **problems(401, 403, 404, 409)},
)
def test_webhook(farm: FarmPart, creation: Making, webhook: str) -> Response:
    """Send a `test` event; the endpoint's deliveries tell what became of it."""
    with farm.database.transaction() as session:
        caller = creation.begin(session, Scope.RENDER)
        delivery = endpoints.send_test(session, caller.tenant_id, webhook)
        answer = creation.keep(session, reply(_delivery(delivery), 202))
    farm.notifier.hurry(delivery.endpoint_id)
    return answer


@router.get(
    "/{webhook}/deliveries",
    operation_id="listWebhookDeliveries",
    responses={200: {"model": DeliveryPage}, **problems(400, 401, 403, 404)},
)
def list_deliveries(farm: FarmPart, secret: Secret, webhook: str, wanted: Annotated[Listing, Query()]) -> Response:
    """List the messages of an endpoint with every attempt, the newest first; they are kept for 30 days."""
    before = read_cursor(wanted.cursor)
    with farm.database.transaction() as session:
        caller = allowed(tenants.authenticate(session, secret), Scope.READ)
        page = endpoints.list_deliveries(
            session, caller.tenant_id, webhook, state=wanted.state, before=before, limit=wanted.limit
        )
    found = [_delivery(delivery) for delivery in page.deliveries]
    return reply(DeliveryPage(data=found, next_cursor=make_cursor(page.next_before)))


@router.post(
    "/deliveries/{delivery}/replay",
    operation_id="replayWebhookDelivery",
    status_code=202,
    responses={202: {"model": DeliveryReply}, **problems(401, 403, 404, 409)},
)
def replay_delivery(farm: FarmPart, creation: Making, delivery: str) -> Response:
    """Send a message again, with the same `webhook-id`, a fresh timestamp and the whole schedule before it."""
    with farm.database.transaction() as session:
        caller = creation.begin(session, Scope.RENDER)
        replayed = endpoints.replay(session, caller.tenant_id, delivery)
        answer = creation.keep(session, reply(_delivery(replayed), 202))
    farm.notifier.hurry(replayed.endpoint_id)
    return answer


def _with_secret(endpoint: Endpoint, secret: str) -> FreshWebhookReply:
    return FreshWebhookReply(**WebhookReply.model_validate(endpoint).model_dump(), secret=secret)


def _delivery(delivery: Delivery) -> DeliveryReply:
    told = DeliveryReply.model_validate(delivery)
    return told if delivery.state == "pending" else told.model_copy(update={"next_attempt_at": None})
