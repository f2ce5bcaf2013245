"""Replicate's adapter against its stub."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from PIL import Image

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
from tests.stubs.replicate import ReplicateStub
from tests.stubs.server import serving
from tests.workers.providers.calls import (
    DEV,
    FLEX,
    KLEIN,
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
from tests.workers.providers.pixels import png_of
from workers.providers.contract import Account
from workers.providers.replicate import ReplicateProvider


@pytest.fixture
def stub() -> ReplicateStub:
    return ReplicateStub()


@pytest.fixture
def account(stub: ReplicateStub) -> Iterator[Account]:
    with serving(stub) as base_url:
        yield account_at(base_url)


@pytest.fixture(scope="module")
def replicate() -> ReplicateProvider:
    return ReplicateProvider()


def test_dev_takes_custom_sides_in_steps_of_32_and_gives_a_string(
    replicate: ReplicateProvider, stub: ReplicateStub, account: Account
) -> None:
    states: list[str] = []
    call = call_of(offer_of("replicate", DEV), "a fox [slow]", width=1000, height=700, seeds=(2**40,))
    finished = run(replicate, call, account, states)
    assert states == ["starting", "processing"]
    assert stub.last.body == {
        "prompt": "a fox [slow]",
        "aspect_ratio": "custom",
        "width": 1024,
        "height": 704,
        "seed": 2**40 % 2**31,
        "output_format": "png",
    }
    assert sizes_of(finished) == [Size(1024, 704)]
    assert (finished.pictures[0].seed, finished.seconds, finished.revision) == (2**40 % 2**31, 5.1, "7bba46bd")
    assert (stub.submits, stub.accepted, stub.leaks) == (1, 1, [])


def test_klein_takes_a_ratio_and_an_area_and_gives_a_list(
    replicate: ReplicateProvider, stub: ReplicateStub, account: Account
) -> None:
    call = call_of(offer_of("replicate", KLEIN), width=640, height=480, references=(reference(),), steps=4)
    finished = run(replicate, call, account)
    assert len(stub.last.body.pop("images")) == 1  # dev calls it input_images
    assert stub.last.body == {
        "prompt": "a red fox",
        "aspect_ratio": "4:3",
        "output_megapixels": "0.5",
        "seed": 7,
        "output_format": "png",
    }
    drawn = sizes_of(finished)[0]
    assert drawn.width >= 640
    assert drawn.height >= 480


def test_an_edit_sends_small_references_inline_and_uploads_large_ones(
    replicate: ReplicateProvider, stub: ReplicateStub, account: Account
) -> None:
    noise = Image.frombytes("RGB", (512, 512), random.Random(1).randbytes(512 * 512 * 3))
    call = call_of(offer_of("replicate", PRO), references=(reference(), png_of(noise)))
    run(replicate, call, account)
    inline, uploaded = stub.last.body["input_images"]
    assert inline.startswith("data:image/png;base64,")
    assert uploaded.startswith(f"{account.base_url}/uploads/")
    assert [size_of(body) for body in stub.files.values()] == [Size(512, 512)]
    assert "steps" not in stub.last.body


def test_flex_takes_the_fields_that_the_others_lack(
    replicate: ReplicateProvider, stub: ReplicateStub, account: Account
) -> None:
    extra = {"prompt_upsampling": False, "safety_tolerance": 5, "go_fast": True}
    run(replicate, call_of(offer_of("replicate", FLEX), extra=extra, steps=20, guidance=3.0), account)
    wanted = {"steps": 20, "guidance": 3.0, "prompt_upsampling": False, "safety_tolerance": 5}
    assert {name: stub.last.body.get(name) for name in wanted} == wanted
    assert "go_fast" not in stub.last.body


def test_an_output_while_it_is_processing_is_not_the_end(replicate: ReplicateProvider, account: Account) -> None:
    states: list[str] = []
    run(replicate, call_of(offer_of("replicate", DEV), "a fox [slow] [early-output]"), account, states)
    assert states == ["starting", "processing"]


@pytest.mark.parametrize(
    ("fault", "kind", "accepted"),
    [
        *LOST,
        ("busy", ProviderBusy, 0),
        ("credit", ProviderAccount, 0),
        ("no-model", ProviderRefused, 0),
        ("invalid", ProviderRefused, 0),
        ("internal", OutcomeUnknown, 0),  # the stub knows that it took nothing; a caller cannot
        ("strange-host", OutcomeUnknown, 1),
        ("failed", ProviderFailed, 1),
        ("aborted", ProviderFailed, 1),
        ("nsfw", Moderated, 1),
        ("removed", ResultLost, 1),
        ("poll-gone", ResultLost, 1),
    ],
)
def test_failures(
    replicate: ReplicateProvider,
    stub: ReplicateStub,
    account: Account,
    fault: str,
    kind: type[ProviderError],
    accepted: int,
) -> None:
    failure = failure_of(replicate, call_of(offer_of("replicate", DEV), f"a fox [{fault}]"), account)
    assert type(failure) is kind
    assert (stub.submits, stub.accepted) == (1, accepted)


def test_a_throttled_submit_says_when_to_come_back(replicate: ReplicateProvider, account: Account) -> None:
    waits = [
        failure_of(replicate, call_of(offer_of("replicate", DEV), f"a fox [{fault}]"), account).retry_after
        for fault in ("busy", "busy-told")
    ]
    assert waits == [30, 3600]  # from the words; a date, capped at an hour


@pytest.mark.parametrize(("fault", "stopped"), [("stuck", True), ("ready", False), ("poll-gone", False)])
def test_cancel(replicate: ReplicateProvider, account: Account, fault: str, stopped: bool) -> None:
    ticket = replicate.submit(call_of(offer_of("replicate", DEV), f"a fox [{fault}]"), account)
    assert replicate.cancel(ticket, account) is stopped
    if stopped:
        with pytest.raises(ProviderFailed):
            replicate.poll(ticket, account)


def test_a_wrong_token_is_the_accounts_fault(replicate: ReplicateProvider, account: Account) -> None:
    wrong = account_at(account.base_url, "r8_wrong")
    assert type(failure_of(replicate, call_of(offer_of("replicate", DEV)), wrong)) is ProviderAccount


def test_the_webhook_hears_of_the_end_only(replicate: ReplicateProvider, stub: ReplicateStub, account: Account) -> None:
    replicate.submit(call_of(offer_of("replicate", DEV), webhook_url="https://farm.example/hook"), account)
    assert stub.asked[-1].json["webhook_events_filter"] == ["completed"]
    assert stub.last.webhook == "https://farm.example/hook"
