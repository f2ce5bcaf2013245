"""Webhooks that providers send to the farm: who signed the raw bytes, which call they are about.

What a webhook says is a hint and no more: the farm asks the provider by its own key how the call ended. Functions here
are pure; the keys of fal are fetched, and kept for a day at most, by the caller.

* fal: Ed25519 over ``request id, user id, timestamp, hex(sha256(body))``, a line each, by any key of its JWKS.
* Replicate: HMAC-SHA256 over ``id.timestamp.body`` (the scheme of Standard Webhooks), any of the listed signatures.
* Black Forest Labs: HMAC-SHA256 over the body; no timestamp, so a replay can only be told by the event's id.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import SecretStr

from fluxfarm.errors import Forbidden, MalformedBody

FAL_JWKS: Final = "https://rest.fal.ai/.well-known/jwks.json"
JWKS_SECONDS: Final = 86_400.0  #: that fal's keys may be kept
TOLERANCE: Final = 300  #: seconds between the sender's clock and ours

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SECONDS: Final = re.compile(r"[0-9]{1,12}")
_REFUSED: Final = "This webhook's signature does not fit."


@dataclass(frozen=True, slots=True)
class Arrival:
    """A webhook that its provider signed; a second one with the same ``event`` is a replay."""

    event: str
    remote_id: str  #: the provider's id of the call


def read_jwks(document: Any) -> tuple[Ed25519PublicKey, ...]:
    """The Ed25519 keys of a JSON Web Key Set (RFC 8037); others in it are passed over."""
    found = document.get("keys") if isinstance(document, dict) else None
    return tuple(filter(None, map(_key, found if isinstance(found, list) else [])))


def check_fal(headers: Mapping[str, str], body: bytes, keys: Sequence[Ed25519PublicKey], now: float) -> Arrival:
    """Check fal's signature; ``headers`` by their names in small letters, ``now`` in seconds since 1970.

    Raises:
        Forbidden: not signed by one of the keys, or more than five minutes ago.
        MalformedBody: signed, but it names no call.
    """
    names = ("x-fal-webhook-request-id", "x-fal-webhook-user-id", "x-fal-webhook-timestamp", "x-fal-webhook-signature")
    request, user, sent, signature = (headers.get(name, "") for name in names)
    _check_time(sent, now)
    digest = hashlib.sha256(body).hexdigest()
    message = f"{request}\n{user}\n{sent}\n{digest}".encode()
    if not request or not any(_signed(key, signature, message) for key in keys):
        raise Forbidden(_REFUSED)
    return Arrival(request, _named(body, "gateway_request_id", "request_id"))


def check_replicate(headers: Mapping[str, str], body: bytes, secret: SecretStr, now: float) -> Arrival:
    """Check Replicate's signature; ``secret`` is the account's ``whsec_…``.

    Raises:
        Forbidden: not signed with the secret, or more than five minutes ago.
        MalformedBody: signed, but it names no call.
    """
    event, sent = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    _check_time(sent, now)
    try:
        key = base64.b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    mac = hmac.new(key, f"{event}.{sent}.".encode() + body, hashlib.sha256)
    wanted = b"v1," + base64.b64encode(mac.digest())
    given = headers.get("webhook-signature", "").encode().split()
    if not key or not event or not any(hmac.compare_digest(wanted, one) for one in given):
        raise Forbidden(_REFUSED)
    return Arrival(event, _named(body, "id"))


def check_bfl(headers: Mapping[str, str], body: bytes, secret: SecretStr) -> Arrival:
    """Check the signature that Black Forest Labs' skills repository describes.

    Raises:
        Forbidden: not signed with the secret.
        MalformedBody: signed, but it names no call.
    """
    key = secret.get_secret_value().encode()
    wanted = b"sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest().encode()
    if not key or not hmac.compare_digest(wanted, headers.get("x-bfl-signature", "").encode()):
        raise Forbidden(_REFUSED)
    remote_id = _named(body, "id", "task_id")
    return Arrival(remote_id, remote_id)


def usual_ticket(protocol: str, base_url: str, endpoint: str, remote_id: str) -> dict[str, str]:
    """Where a call is polled of which only the id is known; the fields of a worker's ``Ticket``, empty for others.

    fal keeps everything but the submit under ``owner/app``, the first two parts of the endpoint.
    """
    if protocol == "fal":
        url = f"{base_url}/{'/'.join(endpoint.split('/')[:2])}/requests/{remote_id}"
        return {
            "remote_id": remote_id,
            "poll_url": f"{url}/status",
            "result_url": url,
            "cancel_url": f"{url}/cancel",
        }
    if protocol == "replicate":
        url = f"{base_url}/predictions/{remote_id}"
        return {"remote_id": remote_id, "poll_url": url, "cancel_url": f"{url}/cancel"}
    return {}


def _key(entry: Any) -> Ed25519PublicKey | None:
    if not isinstance(entry, dict) or entry.get("kty") != "OKP" or entry.get("crv") != "Ed25519":
        return None
    text = str(entry.get("x", ""))
    try:
        return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):
        return None


def _signed(key: Ed25519PublicKey, signature: str, message: bytes) -> bool:
    try:
        key.verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _check_time(sent: str, now: float) -> None:
    if not _SECONDS.fullmatch(sent) or abs(now - int(sent)) > TOLERANCE:
        raise Forbidden("This webhook is too old, or its clock is wrong.")


def _named(body: bytes, *names: str) -> str:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    for value in _values(found, names):
        if _ID.fullmatch(value):
            return value
    raise MalformedBody("This webhook names no call.")


def _values(found: Any, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        value = found.get(name) if isinstance(found, dict) else None
        if isinstance(value, str):
            yield value
