"""Black Forest Labs' adapter against its stub."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from decimal import Decimal

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
from fluxfarm.offers import offers_for
from fluxfarm.sizes import MEGAPIXEL, Size
from tests.stubs.bfl import BflStub
from tests.stubs.server import serving
from tests.workers.providers.calls import (
    DEV,
    FLEX,
    LOST,
    PRO,
    account_at,
    call_of,
    failure_of,
    offer_of,
    reference,
    run,
    size_of,
    sizes_of,
)
from workers.providers.bfl import BflProvider
from workers.providers.contract import Account
from workers.providers.wire import may_carry_key


@pytest.fixture
def stub() -> BflStub:
    return BflStub()


@pytest.fixture
def account(stub: BflStub) -> Iterator[Account]:
    with serving(stub) as base_url:
        yield account_at(base_url)


@pytest.fixture(scope="module")
def bfl() -> BflProvider:
    return BflProvider()


def test_there_is_no_dev() -> None:
    assert "bfl" not in {offer.provider for offer in offers_for(DEV)}


def test_the_poll_follows_the_task_to_its_cluster(bfl: BflProvider, stub: BflStub, account: Account) -> None:
    with serving(stub) as cluster:
        stub.cluster = cluster
        states: list[str] = []
        finished = run(bfl, call_of(offer_of("bfl", PRO), "a fox [slow]", seeds=(2**40 + 5,)), account, states)
        assert states == ["Pending", "Generating"]
        assert sizes_of(finished) == [Size(1024, 768)]
        ticket = bfl.submit(call_of(offer_of("bfl", PRO)), account)
        assert ticket.poll_url.startswith(f"{cluster}/v1/get_result?id=")
        assert account.base_url != cluster
    assert (finished.cost, finished.seconds, finished.pictures[0].seed) == (Decimal("0.03"), 2.5, 5)
    assert stub.leaks == []


def test_an_edit_sends_bare_base64_and_reports_what_it_cost(bfl: BflProvider, stub: BflStub, account: Account) -> None:
    call = call_of(
        offer_of("bfl", FLEX), references=(reference(), reference(70, 50)), extra={"prompt_upsampling": True}
    )
    finished = run(bfl, call, account)
    body = stub.last.body
    assert [size_of(base64.b64decode(body[name])) for name in ("input_image", "input_image_2")] == [
        Size(64, 48),
        Size(70, 50),
    ]
    assert (body["steps"], body["guidance"], body["prompt_upsampling"]) == (28, 3.5, True)
    assert finished.cost == Decimal("0.15")


def test_many_large_references_are_shrunk_to_nine_megapixels_together(
    bfl: BflProvider, stub: BflStub, account: Account
) -> None:
    call = call_of(offer_of("bfl", PRO), width=2048, height=2048, references=(reference(2048, 2048),) * 2)
    run(bfl, call, account)
    sent = [size_of(base64.b64decode(stub.last.body[name])) for name in ("input_image", "input_image_2")]
    assert sum(size.pixels for size in sent) <= 5 * MEGAPIXEL


def test_pro_is_told_the_opposite_of_upsampling(bfl: BflProvider, stub: BflStub, account: Account) -> None:
    extra = {"prompt_upsampling": False, "disable_safety_checker": True}
    run(bfl, call_of(offer_of("bfl", PRO), extra=extra), account)
    assert (stub.last.body["disable_pup"], stub.last.body["safety_tolerance"]) == (True, 5)
    assert not {"steps", "guidance", "prompt_upsampling"} & set(stub.last.body)


@pytest.mark.parametrize(
    ("fault", "kind", "accepted"),
    [
        *LOST,
        ("busy", ProviderBusy, 0),
        ("unavailable", ProviderBusy, 0),
        ("internal", OutcomeUnknown, 0),
        ("credit", ProviderAccount, 0),
        ("key-format", ProviderAccount, 0),
        ("invalid", ProviderRefused, 0),
        ("strange-host", OutcomeUnknown, 1),
        ("request-moderated", Moderated, 1),
        ("content-moderated", Moderated, 1),
        ("lost", ResultLost, 1),
        ("failed", ProviderFailed, 1),
        ("failed-old", ProviderFailed, 1),
    ],
)
def test_failures(
    bfl: BflProvider, stub: BflStub, account: Account, fault: str, kind: type[ProviderError], accepted: int
) -> None:
    failure = failure_of(bfl, call_of(offer_of("bfl", PRO), f"a fox [{fault}]"), account)
    assert type(failure) is kind
    assert failure.retry_after == (9 if fault == "unavailable" else None)
    assert (stub.submits, stub.accepted) == (1, accepted)


def test_states_that_are_no_end(bfl: BflProvider, account: Account) -> None:
    states: list[str] = []
    run(bfl, call_of(offer_of("bfl", PRO), "a fox [strange]"), account, states)
    assert states == ["Reasoning", "Dreaming"]
    run(bfl, call_of(offer_of("bfl", PRO), "a fox [poll-busy]"), account, states)
    assert states[2:] == ["busy 2.0"]


def test_a_reply_without_a_place_to_poll_still_leads_to_the_picture(bfl: BflProvider, account: Account) -> None:
    assert sizes_of(run(bfl, call_of(offer_of("bfl", PRO), "a fox [no-polling]"), account)) == [Size(1024, 768)]


def test_without_a_price_in_the_reply_the_cost_is_not_made_up(bfl: BflProvider, account: Account) -> None:
    assert run(bfl, call_of(offer_of("bfl", PRO), "a fox [unpriced]"), account).cost is None


def test_there_is_no_cancel_and_no_webhook(bfl: BflProvider, stub: BflStub, account: Account) -> None:
    ticket = bfl.submit(call_of(offer_of("bfl", PRO), webhook_url="https://farm.example/hook"), account)
    assert bfl.cancel(ticket, account) is False
    assert "webhook_url" not in stub.last.body


@pytest.mark.parametrize(
    ("url", "fits"),
    [
        ("https://api.eu2.bfl.ai/v1/get_result?id=1", True),
        ("https://bfl.ai/x", True),
        ("http://api.eu2.bfl.ai/x", False),
        ("https://api.bfl.ai:8443/x", False),
        ("https://user@api.bfl.ai/x", False),
        ("https://bfl.ai.evil.example/x", False),
        ("https://evilbfl.ai/x", False),
        ("https://[::1", False),
        ("//api.bfl.ai/x", False),
    ],
)
def test_the_key_goes_to_their_own_hosts_only(url: str, fits: bool) -> None:
    assert may_carry_key(url, account_at("https://api.bfl.ai"), ("bfl.ai", ".bfl.ai")) is fits
