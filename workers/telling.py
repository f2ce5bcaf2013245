"""What a webhook message says and how it is signed, by the form of its endpoint; links are made when it is sent."""

from __future__ import annotations

import json
from typing import Any

from standardwebhooks import Webhook

from fluxfarm.settings import Settings
from fluxfarm.webhooks import Form
from storage.objects import ObjectStore
from storage.presenting import presigned
from storage.replies import fal, replicate
from storage.repository import endpoints
from storage.repository.deliveries import Message
from storage.sealing import Sealer
from storage.signing import fal_keys, replicate_secrets


def body_of(message: Message, settings: Settings, store: ObjectStore) -> bytes:
    """The body, in the words of the message's form.

    Raises:
        StoreUnavailable: the links cannot be made.
    """
    body: dict[str, Any] = message.body
    if message.job is not None:
        urls = [presigned(store, settings, image) for image in message.job.images]
        if message.form is Form.FAL:
            body = fal.webhook_body(message.job, urls)
        else:
            body = replicate.prediction(message.job, urls, settings.base_url)
    return json.dumps(body, separators=(",", ":")).encode()


def headers_of(message: Message, body: bytes, sealer: Sealer) -> dict[str, str]:
    """The headers that name and sign the message.

    Raises:
        InternalError: a secret was sealed with a key that this process does not have.
    """
    if message.form is Form.FAL:
        return _fal_headers(message, body, sealer)
    if message.form is Form.REPLICATE:
        secrets = replicate_secrets(sealer, message.tenant_id)
    else:
        # Each live secret signs, so that a receiver may change to the new one at leisure.
        secrets = [sealer.open(one["sealed"]) for one in endpoints.live(message.secrets, message.now)]
    signed = [Webhook(one).sign(message.id, message.now, body.decode()) for one in secrets]
    return {
        "content-type": "application/json",
        "webhook-id": message.id,
        "webhook-timestamp": str(int(message.now.timestamp())),
        "webhook-signature": " ".join(signed),
    }


def _fal_headers(message: Message, body: bytes, sealer: Sealer) -> dict[str, str]:
    request_id = message.id if message.job is None else str(message.job.uuid)
    user_id, timestamp = str(message.tenant_id), str(int(message.now.timestamp()))
    signature = fal_keys(sealer)[0].sign(fal.signed_message(request_id, user_id, timestamp, body))
    return {
        "content-type": "application/json",
        "x-fal-webhook-request-id": request_id,
        "x-fal-webhook-user-id": user_id,
        "x-fal-webhook-timestamp": timestamp,
        "x-fal-webhook-signature": signature.hex(),
    }
