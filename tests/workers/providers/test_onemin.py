"""1min.ai's adapter against its stub."""

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
from tests.stubs.onemin import OneminStub
from tests.stubs.server import serving
from tests.workers.providers.calls import (
    DEV,
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
from workers.providers.contract import Account, Ticket
from workers.providers.onemin import OneminProvider


@pytest.fixture
def stub() -> OneminStub:
    return OneminStub()


@pytest.fixture
def account(stub: OneminStub) -> Iterator[Account]:
    with serving(stub) as base_url:
        yield account_at(base_url)


@pytest.fixture(scope="module")
def onemin() -> OneminProvider:
    return OneminProvider()


def test_a_size_becomes_a_ratio_and_an_area(onemin: OneminProvider, stub: OneminStub, account: Account) -> None:
    call = call_of(
        offer_of("onemin", DEV),
        width=500,
        height=281,
        seeds=(2**53 + 1,),
        extra={"prompt_strength": 0.5, "go_fast": True},
    )
    finished = run(onemin, call, account)
    assert stub.asked[0].json["type"] == "IMAGE_GENERATOR"
    assert stub.last.body == {
        "prompt": "a red fox",
        "aspect_ratio": "16:9",
        "megapixels": "0.25",
        "num_inference_steps": 28,
        "guidance": 3.5,
        "seed": 1,
        "prompt_strength": 0.5,
        "go_fast": True,
        "output_format": "png",
    }
    assert sizes_of(finished) == [Size(672, 384)]
    assert finished.pictures[0].seed == 1
    assert stub.leaks == []


def test_an_edit_uploads_its_reference_first(onemin: OneminProvider, stub: OneminStub, account: Account) -> None:
    call = call_of(offer_of("onemin", PRO), references=(reference(),), steps=2, guidance=7.0, width=1024, height=1024)
    run(onemin, call, account)
    assert [asked.path for asked in stub.asked] == ["/api/assets", "/api/features"]
    assert stub.asked[1].json["type"] == "IMAGE_EDITOR"
    assert [size_of(body) for body in stub.assets.values()] == [Size(64, 48)]
    assert stub.last.body["imageUrl"] in stub.assets
    assert (stub.last.body["steps"], stub.last.body["guidance"]) == (15, 5)  # clamped to what pro takes there
    assert "megapixels" not in stub.last.body


@pytest.mark.parametrize(
    ("fault", "kind", "accepted"),
    [
        *LOST,
        ("busy", ProviderBusy, 0),
        ("credit", ProviderAccount, 0),
        ("invalid", ProviderRefused, 0),
        ("nsfw", Moderated, 0),
        ("internal", OutcomeUnknown, 0),
        ("failed", ProviderFailed, 1),
        ("odd", OutcomeUnknown, 1),
        ("no-url", ResultLost, 1),
    ],
)
def test_failures(
    onemin: OneminProvider, stub: OneminStub, account: Account, fault: str, kind: type[ProviderError], accepted: int
) -> None:
    failure = failure_of(onemin, call_of(offer_of("onemin", DEV), f"a fox [{fault}]", height=1024), account)
    assert type(failure) is kind
    assert failure.retry_after == (11 if fault == "busy" else None)
    assert (stub.submits, stub.accepted) == (1, accepted)


def test_the_link_may_stand_beside_the_record(onemin: OneminProvider, account: Account) -> None:
    assert sizes_of(run(onemin, call_of(offer_of("onemin", DEV), "a fox [url-outside]", height=1024), account))


def test_a_wrong_key_is_the_accounts_fault_also_in_the_upload(onemin: OneminProvider, account: Account) -> None:
    wrong = account_at(account.base_url, "wrong")
    for references in ((), (reference(),)):
        call = call_of(offer_of("onemin", DEV), references=references, height=1024)
        assert type(failure_of(onemin, call, wrong)) is ProviderAccount


def test_a_shape_that_it_does_not_know_is_not_sent(onemin: OneminProvider, stub: OneminStub, account: Account) -> None:
    call = call_of(offer_of("onemin", DEV), width=1200, height=300)
    assert type(failure_of(onemin, call, account)) is ProviderRefused
    assert stub.asked == []


def test_nothing_is_left_to_poll_or_to_cancel(onemin: OneminProvider, account: Account) -> None:
    ticket = Ticket(remote_id="", poll_url="")
    assert onemin.cancel(ticket, account) is False
    with pytest.raises(ResultLost):
        onemin.poll(ticket, account)
