"""Cloudflare's adapter against its stub."""

from __future__ import annotations

from collections.abc import Iterator

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
from fluxfarm.sizes import Size
from tests.stubs.cloudflare import CloudflareStub
from tests.stubs.server import serving
from tests.workers.providers.calls import (
    DEV,
    KLEIN,
    LOST,
    account_at,
    call_of,
    failure_of,
    offer_of,
    reference,
    run,
    size_of,
    sizes_of,
)
from workers.providers.cloudflare import CloudflareProvider
from workers.providers.contract import Account, Ticket


@pytest.fixture
def stub() -> CloudflareStub:
    return CloudflareStub()


@pytest.fixture
def account(stub: CloudflareStub) -> Iterator[Account]:
    with serving(stub) as base_url:
        yield account_at(base_url)


@pytest.fixture(scope="module")
def cloudflare() -> CloudflareProvider:
    return CloudflareProvider()


def test_a_prompt_alone_goes_as_a_form_and_a_jpeg_comes_back(
    cloudflare: CloudflareProvider, stub: CloudflareStub, account: Account
) -> None:
    finished = run(cloudflare, call_of(offer_of("cloudflare", DEV), "ein Füchslein", seeds=(2**33,)), account)
    assert stub.asked[0].headers["content-type"].startswith("multipart/form-data; boundary=")
    assert stub.last.body == {
        "prompt": "ein Füchslein",
        "width": 1024,
        "height": 768,
        "steps": 28,
        "guidance": 3.5,
        "seed": 0,
    }
    body = finished.pictures[0].body
    assert body is not None
    assert body.startswith(b"\xff\xd8")  # nobody says so but its first bytes
    assert sizes_of(finished) == [Size(1024, 768)]
    assert finished.pictures[0].seed == 0


def test_references_become_files_below_512_pixels(
    cloudflare: CloudflareProvider, stub: CloudflareStub, account: Account
) -> None:
    call = call_of(offer_of("cloudflare", KLEIN), references=(reference(1024, 512), reference(100, 200)), guidance=1.0)
    run(cloudflare, call, account)
    pictures = {part.name: size_of(part.body) for part in stub.asked[0].parts if part.filename}
    assert pictures == {"input_image_0": Size(511, 255), "input_image_1": Size(100, 200)}
    assert "steps" not in stub.last.body  # fixed for klein


@pytest.mark.parametrize(
    ("fault", "kind", "accepted"),
    [
        *LOST,
        ("busy", ProviderBusy, 0),
        ("limited", ProviderBusy, 0),
        ("timed-out", ProviderBusy, 0),
        ("aborted", ProviderBusy, 0),
        ("used-up", ProviderAccount, 0),
        ("quota", ProviderAccount, 0),
        ("paid", ProviderAccount, 0),
        ("account", ProviderAccount, 0),
        ("large", ProviderRefused, 0),
        ("invalid", ProviderRefused, 0),
        ("no-model", ProviderRefused, 0),
        ("nsfw", Moderated, 0),
        ("failed-200", ProviderFailed, 0),
        ("busy-200", ProviderBusy, 0),
        ("internal", OutcomeUnknown, 0),
        ("no-image", ResultLost, 1),
        ("bad-image", ResultLost, 1),
    ],
)
def test_failures(
    cloudflare: CloudflareProvider,
    stub: CloudflareStub,
    account: Account,
    fault: str,
    kind: type[ProviderError],
    accepted: int,
) -> None:
    failure = failure_of(cloudflare, call_of(offer_of("cloudflare", DEV), f"a fox [{fault}]"), account)
    assert type(failure) is kind
    assert (stub.submits, stub.accepted) == (1, accepted)


def test_a_429_is_two_things(cloudflare: CloudflareProvider, account: Account) -> None:
    offer = offer_of("cloudflare", DEV)
    assert failure_of(cloudflare, call_of(offer, "a fox [busy]"), account).retry_after == 4
    day = failure_of(cloudflare, call_of(offer, "a fox [used-up]"), account).retry_after
    assert day is not None
    assert 0 < day <= 86_400  # until 00:00 UTC


def test_a_wrong_token_is_the_accounts_fault(cloudflare: CloudflareProvider, account: Account) -> None:
    wrong = account_at(account.base_url, "wrong")
    assert type(failure_of(cloudflare, call_of(offer_of("cloudflare", DEV)), wrong)) is ProviderAccount


def test_nothing_is_left_to_poll_or_to_cancel(cloudflare: CloudflareProvider, account: Account) -> None:
    ticket = Ticket(remote_id="", poll_url="")
    assert cloudflare.cancel(ticket, account) is False
    with pytest.raises(ResultLost):
        cloudflare.poll(ticket, account)
