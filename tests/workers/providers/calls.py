"""Calls for the adapters, and the way that a worker takes them to their end."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import pytest
from PIL import Image
from pydantic import SecretStr

from fluxfarm.errors import OutcomeUnknown, ProviderBusy, ProviderError
from fluxfarm.offers import Offer, find_offer
from fluxfarm.sizes import Size
from tests.stubs.server import KEY
from workers.providers.contract import Account, Call, Finished, Provider, Running, Ticket

DEV = "black-forest-labs/flux-2-dev"
KLEIN = "black-forest-labs/flux-2-klein-4b"
PRO = "black-forest-labs/flux-2-pro"
FLEX = "black-forest-labs/flux-2-flex"
LOST = [(fault, OutcomeUnknown, 1) for fault in ("reset", "bad-gateway", "garbage", "packed", "huge")]
NONCE = UUID("00000000-0000-4000-8000-000000000001")


def offer_of(provider: str, model: str) -> Offer:
    found = find_offer(provider, model)
    assert found is not None
    return found


def call_of(offer: Offer, prompt: str = "a red fox", **changes: Any) -> Call:
    call = Call(
        offer=offer,
        prompt=prompt,
        width=1024,
        height=768,
        seeds=(7,),
        steps=28,
        guidance=3.5,
        output_format="webp",
        output_quality=80,
        nonce=NONCE,
    )
    return replace(call, **changes)


def account_at(base_url: str, key: str = KEY) -> Account:
    return Account(name="operator", key=SecretStr(key), base_url=base_url, account_id="acc-1")


def reference(width: int = 64, height: int = 48, colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG")
    return file.getvalue()


def run(provider: Provider, call: Call, account: Account, states: list[str] | None = None) -> Finished:
    """Submit and poll to the end without waiting; ``states`` collects the provider's words."""
    found: Ticket | Finished | Running = provider.submit(call, account)
    if isinstance(found, Finished):
        return found
    assert isinstance(found, Ticket)
    ticket = found
    for _ in range(10):
        try:
            found = provider.poll(ticket, account)
        except ProviderBusy as error:
            if states is None:
                raise
            states.append(f"busy {error.retry_after}")
            continue
        if isinstance(found, Finished):
            return found
        if states is not None:
            states.append(found.state)
    raise AssertionError("ten polls, and no end")


def sizes_of(finished: Finished) -> list[Size]:
    """Of the pictures, fetched without a key as the farm does."""
    return [size_of(picture.body or fetched(picture.url)) for picture in finished.pictures]


def size_of(body: bytes) -> Size:
    with Image.open(io.BytesIO(body)) as picture:
        return Size(*picture.size)


def fetched(url: str | None) -> bytes:
    assert url is not None
    reply = httpx.get(url, trust_env=False)
    assert reply.status_code == 200
    return reply.content


def failure_of(provider: Provider, call: Call, account: Account) -> ProviderError:
    """How a call ends badly, at its submit or at its first poll; no word of it holds the key."""
    with pytest.raises(ProviderError) as failure:
        run(provider, call, account)
    assert account.key.get_secret_value() not in failure.value.message
    return failure.value
