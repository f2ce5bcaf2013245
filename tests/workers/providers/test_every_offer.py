"""Every offer is served: what the adapter sends for it, with every option set, is what the provider's schema takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from fluxfarm.catalog import DEV
from fluxfarm.offers import KINDS, OFFERS, Offer, openai_offers
from fluxfarm.sizes import Size
from tests.stubs import STUBS
from tests.stubs.server import Stub, serving
from tests.workers.providers.calls import account_at, call_of, reference, run, sizes_of
from workers.providers.bfl import BflProvider
from workers.providers.cloudflare import CloudflareProvider
from workers.providers.contract import Account, Provider
from workers.providers.fal import FalProvider
from workers.providers.onemin import OneminProvider
from workers.providers.openai import OpenAIProvider
from workers.providers.replicate import ReplicateProvider

NAMED = tuple(offer for kind in KINDS for offer in openai_offers(kind, kind, KINDS[kind].models or {DEV.slug: "dev"}))
OWN: dict[str, Provider] = {
    "fal": FalProvider(),
    "replicate": ReplicateProvider(),
    "bfl": BflProvider(),
    "cloudflare": CloudflareProvider(),
    "onemin": OneminProvider(),
}
PROVIDERS: dict[str, Provider] = OWN | {kind: OpenAIProvider(kind) for kind in KINDS}
OPTIONS = {
    "prompt_upsampling": True,
    "go_fast": True,
    "acceleration": "high",
    "disable_safety_checker": False,
    "prompt_strength": 0.5,
    "loras": [],
}


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, tuple[Stub, Account]]]:
    with ExitStack() as stack:
        found = {}
        for name, make in STUBS.items():
            stub = make()
            base_url = stack.enter_context(serving(stub))
            found[name] = stub, account_at(f"{base_url}/v1" if name in KINDS else base_url)
        yield found


@pytest.mark.parametrize("edits", [False, True], ids=["generate", "edit"])
@pytest.mark.parametrize("offer", [*OFFERS, *NAMED], ids=lambda offer: f"{offer.provider}-{offer.model[18:]}")
def test_it_is_served(running: dict[str, tuple[Stub, Account]], offer: Offer, edits: bool) -> None:
    stub, account = running[offer.provider]
    extra = OPTIONS | dict.fromkeys(offer.extras & {"enable_safety_checker"}, True)
    references = tuple(reference(64 + n) for n in range(offer.max_references)) if edits else ()
    call = call_of(offer, width=512, height=512, references=references, extra=extra, steps=20, guidance=3.0)
    assert sizes_of(run(PROVIDERS[offer.provider], call, account)) == [offer.drawn_size(Size(512, 512))]
    assert stub.last.references == len(references)
    assert stub.leaks == []
