"""Signatures of providers' webhooks: known vectors, and what must not pass."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from fluxfarm.errors import FluxfarmError, Forbidden, MalformedBody
from fluxfarm.inbound import Arrival, check_bfl, check_fal, check_replicate, read_jwks, usual_ticket

NOW = 1_700_000_000
JWKS = {
    "keys": [
        {"kty": "RSA", "n": "x"},
        {"kty": "OKP", "crv": "Ed25519", "x": "!!"},
        {"kty": "OKP", "crv": "Ed25519", "x": "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"},
    ]
}
FAL_BODY = (
    b'{"request_id":"req-1","gateway_request_id":"req-1","status":"OK","payload":{"images":'
    b'[{"url":"https://v3.fal.media/files/a.png"}],"seed":7}}'
)
FAL_HEADERS = {
    "x-fal-webhook-request-id": "req-1",
    "x-fal-webhook-user-id": "user-1",
    "x-fal-webhook-timestamp": str(NOW),
    "x-fal-webhook-signature": "fe7e434979abe213459b1c15c2ce359c5962f30ea9a3e801ec7dadf0f7d9c372"
    "fe64471f341a798b5eac0e46e8933a7feb81b6fc8646a1634a76feffc85e6a00",
}
REPLICATE_SECRET = SecretStr("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3")
REPLICATE_BODY = b'{"id":"p1","status":"succeeded","output":"https://replicate.delivery/x.webp"}'
REPLICATE_HEADERS = {
    "webhook-id": "msg_1",
    "webhook-timestamp": str(NOW),
    "webhook-signature": "v1,vWmM3aUNI2mTosPC7dbBMBSSeEV9wZUTd1MPS/FZEhg=",
}
BFL_SECRET = SecretStr("s3cret")
BFL_BODY = b'{"id":"t1","status":"Ready"}'
BFL_HEADERS = {"x-bfl-signature": "sha256=1a70f881bc81766a78a83a7f576aa204c0352179879aaca7750f79fe8634d768"}


def fal(headers: Mapping[str, str], body: bytes, now: float) -> Arrival:
    return check_fal(headers, body, read_jwks(JWKS), now)


def replicate(headers: Mapping[str, str], body: bytes, now: float) -> Arrival:
    return check_replicate(headers, body, REPLICATE_SECRET, now)


def bfl(headers: Mapping[str, str], body: bytes, _now: float) -> Arrival:
    return check_bfl(headers, body, BFL_SECRET)


Check = Callable[[Mapping[str, str], bytes, float], Arrival]
SIGNED: dict[str, tuple[Check, dict[str, str], bytes, Arrival]] = {
    "fal": (fal, FAL_HEADERS, FAL_BODY, Arrival("req-1", "req-1")),
    "replicate": (replicate, REPLICATE_HEADERS, REPLICATE_BODY, Arrival("msg_1", "p1")),
    "bfl": (bfl, BFL_HEADERS, BFL_BODY, Arrival("t1", "t1")),
}
HEADERS = [(name, header) for name, (_, headers, _, _) in SIGNED.items() for header in headers]


@pytest.mark.parametrize("name", SIGNED)
def test_the_known_vector_passes(name: str) -> None:
    check, headers, body, arrival = SIGNED[name]
    assert check(headers, body, NOW) == arrival
    assert check(headers, body, NOW + 300) == arrival
    assert check(headers, body, NOW - 300) == arrival


@pytest.mark.parametrize("name", ["fal", "replicate"])
@pytest.mark.parametrize("late", [301, -301, 10**9])
def test_an_old_one_does_not(name: str, late: int) -> None:
    check, headers, body, _ = SIGNED[name]
    with pytest.raises(Forbidden):
        check(headers, body, NOW + late)


@pytest.mark.parametrize("name", SIGNED)
def test_one_other_byte_does_not(name: str) -> None:
    check, headers, body, _ = SIGNED[name]
    for changed in (body + b" ", body[:-1], body.replace(b'"', b"'", 1), b""):
        with pytest.raises(Forbidden):
            check(headers, changed, NOW)


@pytest.mark.parametrize(("name", "header"), HEADERS)
@pytest.mark.parametrize("value", [None, "", "x", "1700000001", "v1,", "sha256=", "\N{SUPERSCRIPT TWO}", "9" * 400])
def test_a_header_that_is_missing_or_altered_does_not(name: str, header: str, value: str | None) -> None:
    check, headers, body, _ = SIGNED[name]
    altered = {key: text for key, text in headers.items() if key != header} | ({header: value} if value else {})
    with pytest.raises(Forbidden):
        check(altered, body, NOW)


def test_any_signature_of_a_list_may_fit() -> None:
    listed = f"v1,AAAA v1a,xyz {REPLICATE_HEADERS['webhook-signature']}"
    assert replicate(REPLICATE_HEADERS | {"webhook-signature": listed}, REPLICATE_BODY, NOW).remote_id == "p1"


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_***", "other"])
def test_without_the_secret_nothing_passes(secret: str) -> None:
    with pytest.raises(Forbidden):
        check_replicate(REPLICATE_HEADERS, REPLICATE_BODY, SecretStr(secret), NOW)
    with pytest.raises(Forbidden):
        check_bfl(BFL_HEADERS, BFL_BODY, SecretStr("" if secret == "whsec_" else secret))
    with pytest.raises(Forbidden):
        check_fal(FAL_HEADERS, FAL_BODY, (), NOW)


@pytest.mark.parametrize("document", [None, [], {}, {"keys": None}, {"keys": [None, 1, {"kty": "OKP"}]}])
def test_a_key_set_that_is_none_holds_no_keys(document: Any) -> None:
    assert read_jwks(document) == ()


@pytest.mark.parametrize(
    "body", [b"[]", b"null", b"{", b'{"request_id": 7}', b'{"request_id": "../../x"}', b'{"request_id": ""}', b"\xff"]
)
def test_a_signed_one_that_names_no_call_is_malformed(body: bytes) -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    with pytest.raises(MalformedBody):
        fal(signed_by(private, body), body, NOW)


def test_the_id_before_fals_own_retries_counts() -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    body = json.dumps({"request_id": "second", "gateway_request_id": "first"}).encode()
    assert fal(signed_by(private, body), body, NOW) == Arrival("req-1", "first")
    stranger = signed_by(Ed25519PrivateKey.generate(), body)
    with pytest.raises(FluxfarmError):
        fal(stranger, body, NOW)


def signed_by(private: Ed25519PrivateKey, body: bytes) -> dict[str, str]:
    lines = ("req-1", "user-1", str(NOW), hashlib.sha256(body).hexdigest())
    return FAL_HEADERS | {"x-fal-webhook-signature": private.sign("\n".join(lines).encode()).hex()}


def test_the_usual_places_of_a_call() -> None:
    found = usual_ticket("fal", "https://queue.fal.run", "fal-ai/flux-2/klein/9b/edit", "r1")
    assert found["poll_url"] == "https://queue.fal.run/fal-ai/flux-2/requests/r1/status"
    found = usual_ticket("replicate", "https://api.replicate.com/v1", "black-forest-labs/flux-2-dev", "p1")
    assert found["cancel_url"] == "https://api.replicate.com/v1/predictions/p1/cancel"
    assert usual_ticket("bfl", "https://api.bfl.ai", "flux-2-pro", "t1") == {}
