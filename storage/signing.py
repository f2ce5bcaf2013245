"""What signs the webhooks of other forms: keys that follow from ``FLUXFARM_SECRET_KEY``, so that none is stored.

While that setting is ``new,old``, the new one signs fal's form and both are shown; Replicate's has both signatures.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from storage.sealing import Sealer

FAL: Final = "fal webhook"
REPLICATE: Final = "replicate webhook"


def fal_keys(sealer: Sealer) -> list[Ed25519PrivateKey]:
    """The farm's own keys, the one that signs first."""
    return [Ed25519PrivateKey.from_private_bytes(seed) for seed in sealer.derive(FAL)]


def jwks(sealer: Sealer) -> dict[str, Any]:
    """The public halves as a JSON Web Key Set (RFC 7517, RFC 8037)."""
    return {"keys": [jwk(key) for key in fal_keys(sealer)]}


def jwk(key: Ed25519PrivateKey) -> dict[str, str]:
    """The public half of a key."""
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    kid = hashlib.sha256(raw).hexdigest()[:16]
    x = base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "use": "sig", "alg": "EdDSA"}


def replicate_secrets(sealer: Sealer, tenant_id: UUID) -> list[str]:
    """The tenant's default secrets as Standard Webhooks spells them, the newest first."""
    derived = sealer.derive(f"{REPLICATE} {tenant_id}")
    return [f"whsec_{base64.b64encode(secret).decode('ascii')}" for secret in derived]
