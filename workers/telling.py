"""What a webhook message says and how it is signed, by the form of its endpoint; links are made when it is sent."""

from __future__ import annotations

import json
from typing import Any

from standardwebhooks import Webhook

from fluxfarm.settings import Settings
from fluxfarm.webhooks import Form
from storage.delivery import Delivery
from storage.objects import HASTY, make_store
from storage.presenting import presigned
from storage.replies import fal, replicate
from storage.repository import endpoints
from storage.repository.deliveries import Message
from storage.sealing import Sealer
from storage.signing import fal_keys, replicate_secrets


class Teller:
    """Words and signs messages; the store is only asked for links."""

    def __init__(self, settings: Settings, sealer: Sealer) -> None:
        """``sealer`` has the keys of all forms."""
        self._settings = settings
        self._sealer = sealer
        self._store = make_store(settings, HASTY)
        self._delivery = Delivery.of(settings, sealer)

    def signed(self, message: Message) -> tuple[bytes, dict[str, str]]:
        """The body and the headers that name and sign it.

        Raises:
            StoreUnavailable: the links cannot be made.
            InternalError: a secret was sealed with a key that this process does not have.
        """
        body = json.dumps(self._told(message), separators=(",", ":")).encode()
        if message.form is Form.FAL:
            return body, self._fal_headers(message, body)
        if message.form is Form.REPLICATE:
            secrets = replicate_secrets(self._sealer, message.tenant_id)
        else:
            # Each live secret signs, so that a receiver may change to the new one at leisure.
            secrets = [self._sealer.open(one["sealed"]) for one in endpoints.live(message.secrets, message.now)]
        signatures = [Webhook(one).sign(message.id, message.now, body.decode()) for one in secrets]
        return body, {
            "content-type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": str(int(message.now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }

    def _told(self, message: Message) -> dict[str, Any]:
        if message.job is None:
            return message.body
        if message.form is Form.FAL:
            urls = [presigned(self._store, self._settings, image) for image in message.job.images]
            return fal.webhook_body(message.job, urls)
        return replicate.prediction(message.job, self._delivery.urls(message.job), self._settings.base_url)

    def _fal_headers(self, message: Message, body: bytes) -> dict[str, str]:
        request_id = message.id if message.job is None else str(message.job.uuid)
        user_id, timestamp = str(message.tenant_id), str(int(message.now.timestamp()))
        signature = fal_keys(self._sealer)[0].sign(fal.signed_message(request_id, user_id, timestamp, body))
        return {
            "content-type": "application/json",
            "x-fal-webhook-request-id": request_id,
            "x-fal-webhook-user-id": user_id,
            "x-fal-webhook-timestamp": timestamp,
            "x-fal-webhook-signature": signature.hex(),
        }

    def close(self) -> None:
        """Give the store's connections back."""
        self._store.close()
