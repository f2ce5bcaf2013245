"""How fal and Replicate sign the webhooks that they send."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FAL_KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
FAL_USER: Final = "user-1"
REPLICATE_SECRET: Final = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"


def fal_jwks() -> dict[str, Any]:
    """What fal publishes at ``/.well-known/jwks.json``."""
    raw = FAL_KEY.public_key().public_bytes_raw()
    text = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    return {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": text}]}


def fal_headers(event: str, body: bytes, now: int) -> dict[str, str]:
    digest = hashlib.sha256(body).hexdigest()
    signature = FAL_KEY.sign(f"{event}\n{FAL_USER}\n{now}\n{digest}".encode())
    return {
        "x-fal-webhook-request-id": event,
        "x-fal-webhook-user-id": FAL_USER,
        "x-fal-webhook-timestamp": str(now),
        "x-fal-webhook-signature": signature.hex(),
    }


def replicate_headers(event: str, body: bytes, now: int) -> dict[str, str]:
    key = base64.b64decode(REPLICATE_SECRET.removeprefix("whsec_"))
    mac = hmac.new(key, f"{event}.{now}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(mac).decode()}"
    return {"webhook-id": event, "webhook-timestamp": str(now), "webhook-signature": signature}
