"""The adapter of the OpenAI shape against its stub, in the habits of each service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest

from fluxfarm.errors import (
    Moderated,
    OutcomeUnknown,
    ProviderAccount,
    ProviderBusy,
    ProviderError,
    ProviderFailed,
    ProviderRefused,
    ResultLost,
)
from fluxfarm.offers import KINDS, Offer, openai_offers
from fluxfarm.sizes import Size
from tests.stubs.openai import OpenAIStub
from tests.stubs.server import serving
from tests.workers.providers.calls import (
    DEV,
    LOST,
    NONCE,
    account_at,
    call_of,
    failure_of,
    reference,
    run,
    size_of,
    sizes_of,
)
from workers.providers.contract import Account, Ticket
from workers.providers.openai import OpenAIProvider

PROVIDERS = {kind: OpenAIProvider(kind) for kind in KINDS}


@contextmanager
def speaking(kind: str) -> Iterator[tuple[OpenAIProvider, OpenAIStub, Account]]:
    stub = OpenAIStub(kind)
    with serving(stub) as base_url:
        yield PROVIDERS[kind], stub, account_at(f"{base_url}/v1")


@pytest.fixture
def farm() -> Iterator[tuple[OpenAIProvider, OpenAIStub, Account]]:
    """Another Fluxfarm."""
    with speaking("openai") as found:
        yield found


@pytest.fixture
def gateway() -> Iterator[tuple[OpenAIProvider, OpenAIStub, Account]]:
    """AIgateway, which may answer with a job."""
    with speaking("aigateway") as found:
        yield found


def dev_at(kind: str) -> Offer:
    return openai_offers(kind, kind, {DEV: "their-dev"})[0]


COMMON: dict[str, Any] = {"model": "their-dev", "prompt": "a red fox", "n": 1}
SENT: dict[str, dict[str, Any]] = {
    "openai": {"seed": 7, "num_inference_steps": 28, "guidance": 3.5, "output_format": "png"},
    "lumenfall": {"seed": 7, "num_inference_steps": 28, "cfg_scale": 3.5, "output_format": "png", "go_fast": True}
    | {"prompt_enhancement": "off"},
    "aigateway": {},
    "together": {"width": 1024, "height": 768, "steps": 28, "seed": 7, "guidance_scale": 3.5}
    | {"output_format": "png", "response_format": "base64"},
    "deepinfra": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_service_is_sent_what_it_documents(kind: str) -> None:
    sized = {} if kind == "together" else {"size": "1024x768", "response_format": "b64_json"}
    with speaking(kind) as (provider, stub, account):
        extra = {"go_fast": True, "prompt_upsampling": False, "somebody_elses": 1}
        finished = run(provider, call_of(dev_at(kind), extra=extra), account)
    assert stub.last.body == COMMON | sized | SENT[kind]
    assert stub.asked[0].headers["idempotency-key"] == str(NONCE)
    assert sizes_of(finished) == [Size(1024, 768)]
    assert finished.pictures[0].body is not None
    assert finished.pictures[0].seed == (7 if "seed" in SENT[kind] else None)
    assert finished.cost == (Decimal("0.25") if kind == "openai" else None)


@pytest.mark.parametrize("kind", KINDS)
def test_each_service_edits_in_its_own_way(kind: str) -> None:
    references = (reference(), reference(70, 50))[: KINDS[kind].max_references]
    with speaking(kind) as (provider, stub, account):
        call = call_of(dev_at(kind), references=references, extra={"disable_safety_checker": True})
        assert sizes_of(run(provider, call, account)) == [Size(1024, 768)]
    assert stub.last.references == len(references)
    if kind != "together":
        assert stub.asked[0].path == "/v1/images/edits"
        files = [size_of(part.body) for part in stub.asked[0].parts if part.filename]
        assert files == [Size(64, 48), Size(70, 50)][: len(references)]


@pytest.mark.parametrize(
    ("fault", "kind", "accepted"),
    [
        *LOST,
        ("busy", ProviderBusy, 0),
        ("rate-limited", ProviderBusy, 0),
        ("quota", ProviderAccount, 0),
        ("wallet", ProviderAccount, 0),
        ("balance", ProviderAccount, 0),
        ("no-model", ProviderRefused, 0),
        ("disabled", ProviderRefused, 0),
        ("invalid", ProviderRefused, 0),
        ("exhausted", ProviderBusy, 0),
        ("failed", ProviderFailed, 0),
        ("upstream", ProviderFailed, 0),
        ("saturated", ProviderBusy, 0),
        ("moderated", Moderated, 0),
        ("flagged", Moderated, 0),
        ("canceled", ProviderFailed, 0),
        ("native", OutcomeUnknown, 0),
        ("gateway-timeout", OutcomeUnknown, 0),
        ("no-data", ResultLost, 1),
    ],
)
def test_failures(
    farm: tuple[OpenAIProvider, OpenAIStub, Account], fault: str, kind: type[ProviderError], accepted: int
) -> None:
    provider, stub, account = farm
    failure = failure_of(provider, call_of(dev_at("openai"), f"a fox [{fault}]"), account)
    assert type(failure) is kind
    assert failure.retry_after == {"busy": 6, "saturated": 12}.get(fault)
    assert (stub.submits, stub.accepted) == (1, accepted)


def test_a_link_is_taken_where_the_service_gives_one(farm: tuple[OpenAIProvider, OpenAIStub, Account]) -> None:
    provider, stub, account = farm
    finished = run(provider, call_of(dev_at("openai"), "a fox [link]"), account)
    assert finished.pictures[0].url is not None
    assert sizes_of(finished) == [Size(1024, 768)]
    assert stub.leaks == []


def test_a_job_of_aigateway_is_polled(gateway: tuple[OpenAIProvider, OpenAIStub, Account]) -> None:
    provider, _, account = gateway
    states: list[str] = []
    finished = run(provider, call_of(dev_at("aigateway"), "a fox [later] [often] [slow]"), account, states)
    assert states == ["", "running"]  # a 304 says nothing
    assert sizes_of(finished) == [Size(1024, 768)]


@pytest.mark.parametrize(("fault", "kind"), [("job-failed", ProviderFailed), ("job-moderated", Moderated)])
def test_a_job_that_fails(
    gateway: tuple[OpenAIProvider, OpenAIStub, Account], fault: str, kind: type[ProviderError]
) -> None:
    provider, _, account = gateway
    assert type(failure_of(provider, call_of(dev_at("aigateway"), f"a fox [later] [{fault}]"), account)) is kind


def test_a_farm_that_still_renders_is_polled_at_its_record(farm: tuple[OpenAIProvider, OpenAIStub, Account]) -> None:
    provider, stub, account = farm
    states: list[str] = []
    finished = run(provider, call_of(dev_at("openai"), "a fox [still-rendering] [slow]"), account, states)
    assert states == ["QUEUED", "RUNNING"]
    assert (finished.cost, stub.submits) == (Decimal("0.25"), 1)
    assert sizes_of(finished) == [Size(1024, 768)]
    prompt = "a fox [still-rendering] [job-moderated]"
    assert type(failure_of(provider, call_of(dev_at("openai"), prompt), account)) is Moderated


@pytest.mark.parametrize("kind", ["openai", "aigateway"])
def test_cancel(kind: str) -> None:
    word = "still-rendering" if kind == "openai" else "later"
    with speaking(kind) as (provider, _, account):
        ticket = provider.submit(call_of(dev_at(kind), f"a fox [{word}] [stuck]"), account)
        assert isinstance(ticket, Ticket)
        assert provider.cancel(ticket, account) is True
        with pytest.raises(ProviderFailed):
            provider.poll(ticket, account)
        over = provider.submit(call_of(dev_at(kind), f"a fox [{word}]"), account)
        assert isinstance(over, Ticket)
        assert provider.cancel(over, account) is False


def test_a_wrong_key_is_the_accounts_fault(farm: tuple[OpenAIProvider, OpenAIStub, Account]) -> None:
    provider, _, account = farm
    wrong = account_at(account.base_url, "wrong")
    assert type(failure_of(provider, call_of(dev_at("openai")), wrong)) is ProviderAccount


def test_results_may_lie_on_the_endpoints_own_host() -> None:
    assert OpenAIProvider("studio", "https://farm.example/v1").result_hosts == ("farm.example",)
    assert OpenAIProvider("lumenfall").result_hosts == (".lumenfall.ai",)
