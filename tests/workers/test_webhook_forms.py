"""Webhooks as fal's and Replicate's receivers know them, checked as their documents say."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import SecretStr
from replicate.webhook import Webhooks as Replicate
from replicate.webhook import WebhookSigningSecret
from standardwebhooks import Webhook

from fluxfarm.airecord import Problem
from fluxfarm.errors import Conflict
from fluxfarm.settings import Settings
from fluxfarm.webhooks import Form, Moment, Telling
from storage.objects import object_key
from storage.records import Job
from storage.replies.fal import signed_message
from storage.repository import attempts, endpoints
from storage.sealing import Sealer
from storage.signing import jwk, jwks, replicate_secrets
from tests.making import make_job, must_claim
from tests.workers.desk import PROBLEM, Desk, OpenDesk
from tests.workers.receiver import Arrived

FAL = Telling(Form.FAL)
REPLICATE = Telling(Form.REPLICATE, (Moment.START, Moment.END))
PICTURE = {
    "n": 0,
    "seed": 7,
    "width": 64,
    "height": 64,
    "content_type": "image/webp",
    "size_bytes": 9,
    "sha256": "0" * 64,
}


def ended(desk: Desk, telling: Telling, problem: Problem | None = None) -> Job:
    """A job that ended, whose endpoint is told so."""
    with desk.database.transaction() as session:
        endpoint, _ = endpoints.find_or_create(session, desk.tenant.id, desk.receiver.url, "", telling)
    job = make_job(desk.database, desk.tenant, webhook_id=endpoint.id)
    claimed = must_claim(desk.database, job.uuid)
    with desk.database.transaction() as session:
        if problem is None:
            key = object_key(claimed.tenant_id, claimed.uuid, claimed.attempt, 0, "webp")
            images = [{"object_key": key, **PICTURE}]
            drawn = attempts.Outcome(images=images, timings={"render": 0.1}, model_revision="test")
            assert attempts.finish(session, claimed, drawn)
        else:
            attempts.fail(session, claimed, problem, max_attempts=3)
    return job


def sent(desk: Desk) -> list[Arrived]:
    sender = desk.sender()
    assert [sender.handle(delivery.id) for delivery in desk.all()] == ["delivered"] * len(desk.all())
    return desk.receiver.arrived


def checked_as_fal_says(arrived: Arrived, keys: dict[str, Any]) -> Any:
    """The body, if one of the published keys signed it."""
    names = ("request-id", "user-id", "timestamp")
    head = [arrived.headers[f"x-fal-webhook-{name}"] for name in names]
    message = "\n".join([*head, hashlib.sha256(arrived.body).hexdigest()]).encode()
    signature = bytes.fromhex(arrived.headers["x-fal-webhook-signature"])
    assert abs(datetime.now(UTC).timestamp() - int(head[2])) < 300
    for key in keys["keys"]:
        try:
            Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "=")).verify(signature, message)
        except InvalidSignature:
            continue
        return json.loads(arrived.body)
    raise InvalidSignature


def test_fals_form(desk: OpenDesk) -> None:
    with desk() as open_:
        job = ended(open_, FAL)
        (arrived,) = sent(open_)
        told = checked_as_fal_says(arrived, jwks(open_.sealer))
        assert (told["request_id"], told["gateway_request_id"], told["status"]) == (str(job.uuid), str(job.uuid), "OK")
        (image,) = told["payload"]["images"]
        assert (image["width"], image["content_type"]) == (64, "image/webp")
        assert image["url"].startswith("http://127.0.0.1:8000/objects/t/")
        assert arrived.headers["x-fal-webhook-user-id"] == str(open_.tenant.id)
        arrived.body += b" "
        with pytest.raises(InvalidSignature):
            checked_as_fal_says(arrived, jwks(open_.sealer))


def test_a_failure_in_fals_form(desk: OpenDesk) -> None:
    with desk() as open_:
        ended(open_, FAL, PROBLEM)
        told = checked_as_fal_says(sent(open_)[0], jwks(open_.sealer))
        assert (told["status"], told["error"]) == ("ERROR", "Invalid status code: 500")
        assert told["payload"] == {"detail": "It broke.", "error_type": "runner_server_error"}


def test_replicates_form_at_the_start_and_at_the_end(desk: OpenDesk) -> None:
    with desk() as open_:
        job = ended(open_, REPLICATE)
        first, last = sent(open_)
        key = WebhookSigningSecret(key=replicate_secrets(open_.sealer, open_.tenant.id)[0])
        for arrived in (first, last):
            Replicate.validate(
                headers={"content-type": "application/json", **arrived.headers},
                body=arrived.body.decode(),
                secret=key,
                tolerance=300,
            )
        told = json.loads(last.body)
        assert (told["id"], told["status"]) == (str(job.uuid), "succeeded")
        assert told["output"][0].startswith("http://127.0.0.1:8000/replicate/delivery/t/")
        assert [delivery.type for delivery in open_.all()] == ["job.started", "job.succeeded"]


def test_only_what_was_asked_for_is_told(desk: OpenDesk) -> None:
    with desk() as open_:
        ended(open_, Telling(Form.REPLICATE, (Moment.START,)))
        ended(open_, Telling(Form.REPLICATE, ()), PROBLEM)
        ended(open_, Telling(Form.REPLICATE, (Moment.END,)), PROBLEM)
        assert [delivery.type for delivery in open_.all()] == ["job.started", "job.failed"]


def test_a_url_may_have_an_endpoint_of_each_form(desk: OpenDesk) -> None:
    with desk() as open_, open_.database.transaction() as session:
        made = [
            endpoints.find_or_create(session, open_.tenant.id, open_.receiver.url, "", telling)[0].id
            for telling in (Telling(), FAL, REPLICATE, FAL)
        ]
        assert made[0] == open_.endpoint.id
        assert made[1] == made[3]
        assert len(set(made)) == 3
        with pytest.raises(Conflict, match=r"jwks\.json"):
            endpoints.rotate(session, open_.tenant.id, made[1], "")


def test_keys_outlive_a_restart_and_a_change_of_the_secret(settings: Settings) -> None:
    def keys(secret: str) -> list[str]:
        sealer = Sealer.from_settings(settings.model_copy(update={"secret_key": SecretStr(secret)}))
        return [key["x"] for key in jwks(sealer)["keys"]]

    old, new = "the-first-secret-key", "the-second-secret-key"
    assert keys(old) == keys(old)
    assert keys(f"{new},{old}") == [*keys(new), *keys(old)]


def test_the_vectors_of_both_schemes() -> None:
    """Made with their own libraries."""
    body = (
        b'{"request_id":"req-1","gateway_request_id":"req-1","status":"OK","payload":{"images":'
        b'[{"url":"https://v3.fal.media/files/a.png"}],"seed":7}}'
    )
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    assert jwk(key)["x"] == "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"
    assert key.sign(signed_message("req-1", "user-1", "1700000000", body)).hex() == (
        "fe7e434979abe213459b1c15c2ce359c5962f30ea9a3e801ec7dadf0f7d9c372"
        "fe64471f341a798b5eac0e46e8933a7feb81b6fc8646a1634a76feffc85e6a00"
    )
    signed = Webhook("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3").sign(
        "msg_1",
        datetime.fromtimestamp(1_700_000_000, UTC),
        '{"id":"p1","status":"succeeded","output":"https://replicate.delivery/x.webp"}',
    )
    assert signed == "v1,vWmM3aUNI2mTosPC7dbBMBSSeEV9wZUTd1MPS/FZEhg="
