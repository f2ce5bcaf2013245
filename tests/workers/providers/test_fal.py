"""fal's adapter against its stub."""

from __future__ import annotations

import base64
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
from tests.stubs.fal import FalStub
from tests.stubs.server import KEY, serving
from tests.workers.providers.calls import (
    DEV,
    FLEX,
    KLEIN,
    PRO,
    account_at,
    call_of,
    offer_of,
    reference,
    run,
    size_of,
    sizes_of,
)
from workers.providers.contract import Account, Running, Ticket
from workers.providers.fal import FalProvider


@pytest.fixture
def stub() -> FalStub:
    return FalStub()


@pytest.fixture
def account(stub: FalStub) -> Iterator[Account]:
    with serving(stub) as base_url:
        yield account_at(base_url)


@pytest.fixture(scope="module")
def fal() -> FalProvider:
    return FalProvider()


def test_a_picture_comes_back_at_the_size_and_seed_that_were_asked(
    fal: FalProvider, stub: FalStub, account: Account
) -> None:
    states: list[str] = []
    call = call_of(offer_of("fal", DEV), "a fox [slow]", seeds=(2**60 + 1,), extra={"acceleration": "high"})
    finished = run(fal, call, account, states)
    assert states == ["IN_QUEUE", "IN_PROGRESS"]
    assert sizes_of(finished) == [Size(1024, 768)]
    assert [picture.seed for picture in finished.pictures] == [2**60 + 1]  # beyond what a float can hold
    assert finished.seconds == 1.5
    assert stub.last.body == {
        "prompt": "a fox [slow]",
        "image_size": {"width": 1024, "height": 768},
        "seed": 2**60 + 1,
        "num_inference_steps": 28,
        "guidance_scale": 3.5,
        "acceleration": "high",
        "output_format": "png",
    }
    assert (stub.submits, stub.accepted, stub.leaks) == (1, 1, [])


def test_an_edit_goes_to_the_edit_endpoint_and_is_polled_below_owner_and_app(
    fal: FalProvider, stub: FalStub, account: Account
) -> None:
    call = call_of(offer_of("fal", KLEIN), references=(reference(), reference(3000, 2000)), steps=2, guidance=1.0)
    ticket = fal.submit(call, account)
    assert stub.last.endpoint == "fal-ai/flux-2/klein/4b/edit"
    assert ticket.poll_url == f"{account.base_url}/fal-ai/flux-2/requests/{ticket.remote_id}/status"
    sent = [base64.b64decode(uri.partition(",")[2]) for uri in stub.last.body["image_urls"]]
    assert [size_of(png) for png in sent] == [Size(64, 48), Size(2508, 1672)]  # at most 4 megapixels
    assert stub.last.body["num_inference_steps"] == 4  # clamped to what klein takes at fal
    assert "guidance_scale" not in stub.last.body
    assert not isinstance(fal.poll(ticket, account), Running)


@pytest.mark.parametrize(
    ("model", "extra"),
    [(PRO, {"safety_tolerance": "5"}), (FLEX, {"disable_safety_checker": True}), (DEV, {"prompt_upsampling": True})],
)
def test_each_model_is_sent_its_own_fields_only(
    fal: FalProvider, stub: FalStub, account: Account, model: str, extra: dict[str, object]
) -> None:
    call = call_of(offer_of("fal", model), extra={**extra, "go_fast": True, "somebody_elses": 1})
    assert sizes_of(run(fal, call, account)) == [Size(1024, 768)]
    named = {
        "disable_safety_checker": ("enable_safety_checker", False),
        "prompt_upsampling": ("enable_prompt_expansion", True),
    }
    name, value = next(iter(extra.items()))
    name, value = named.get(name, (name, value))
    assert stub.last.body[name] == value


def test_several_seeds_are_several_images(fal: FalProvider, account: Account) -> None:
    finished = run(fal, call_of(offer_of("fal", DEV), seeds=(7, 8)), account)
    assert [picture.seed for picture in finished.pictures] == [7, None]


@pytest.mark.parametrize(
    ("fault", "kind", "accepted"),
    [
        ("busy", ProviderBusy, 0),
        ("no-runner", ProviderBusy, 0),
        ("timeout", ProviderBusy, 0),
        ("user-timeout", ProviderFailed, 0),
        ("internal", ProviderFailed, 0),
        ("bad-request", ProviderRefused, 0),
        ("locked", ProviderAccount, 0),
        ("moderated", Moderated, 0),
        ("invalid", ProviderRefused, 0),
        ("invalid-text", ProviderRefused, 0),
        ("reset", OutcomeUnknown, 1),
        ("bad-gateway", OutcomeUnknown, 1),
        ("garbage", OutcomeUnknown, 1),
        ("packed", OutcomeUnknown, 1),
        ("huge", OutcomeUnknown, 1),
        ("strange-host", OutcomeUnknown, 1),
    ],
)
def test_a_submit_that_fails_is_told_by_its_class(
    fal: FalProvider, stub: FalStub, account: Account, fault: str, kind: type[ProviderError], accepted: int
) -> None:
    with pytest.raises(kind) as failure:
        fal.submit(call_of(offer_of("fal", DEV), f"a fox [{fault}]"), account)
    assert type(failure.value) is kind
    assert failure.value.retry_after == (7 if fault == "busy" else None)
    assert (stub.submits, stub.accepted) == (1, accepted)  # one POST, whatever came of it
    assert "secret prompt" not in failure.value.message
    assert KEY not in failure.value.message


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("failed-runner-disconnected", ProviderFailed),
        ("failed-internal-error", ProviderFailed),
        ("failed-bad-request", ProviderRefused),
        ("failed-content-policy-violation", Moderated),
        ("failed-text", ProviderFailed),
        ("result-moderated", Moderated),
        ("result-invalid", ProviderRefused),
        ("result-retryable", ProviderFailed),
        ("result-text", ProviderRefused),
        ("result-busy", ProviderBusy),
        ("result-gone", ResultLost),
        ("result-empty", ResultLost),
        ("nsfw", Moderated),
    ],
)
def test_completed_does_not_mean_success(
    fal: FalProvider, account: Account, fault: str, kind: type[ProviderError]
) -> None:
    ticket = fal.submit(call_of(offer_of("fal", DEV), f"a fox [{fault}]"), account)
    with pytest.raises(ProviderError) as failure:
        fal.poll(ticket, account)
    assert type(failure.value) is kind


def test_a_poll_that_fails_may_be_repeated(fal: FalProvider, account: Account) -> None:
    states: list[str] = []
    run(fal, call_of(offer_of("fal", DEV), "a fox [poll-busy]"), account, states)
    assert states == ["busy 3.0"]


def test_the_ticket_stands_without_addresses_in_the_reply(fal: FalProvider, account: Account) -> None:
    call = call_of(offer_of("fal", DEV), "a fox [no-urls]", references=(reference(),))
    assert sizes_of(run(fal, call, account)) == [Size(1024, 768)]


@pytest.mark.parametrize(("fault", "stopped"), [("stuck", True), ("slow", False), ("gone", False)])
def test_cancel(fal: FalProvider, account: Account, fault: str, stopped: bool) -> None:
    ticket = fal.submit(call_of(offer_of("fal", DEV), f"a fox [{fault}]"), account)
    assert fal.cancel(ticket, account) is stopped


def test_a_running_call_is_asked_to_stop_and_ends_as_failed(fal: FalProvider, account: Account) -> None:
    ticket = fal.submit(call_of(offer_of("fal", DEV), "a fox [stuck]"), account)
    assert fal.poll(ticket, account) == Running(state="IN_PROGRESS")
    assert fal.cancel(ticket, account)
    with pytest.raises(ProviderFailed):
        fal.poll(ticket, account)


@pytest.mark.parametrize("key", ["wrong", "", "with space", "with\nbreak", "schlüssel"])
def test_a_bad_key_is_the_accounts_fault(fal: FalProvider, stub: FalStub, account: Account, key: str) -> None:
    with pytest.raises(ProviderAccount):
        fal.submit(call_of(offer_of("fal", DEV)), account_at(account.base_url, key))
    assert stub.accepted == 0


def test_a_closed_port_is_no_lost_call(fal: FalProvider, stub: FalStub) -> None:
    with serving(stub) as base_url:
        account = account_at(base_url)
        ticket = fal.submit(call_of(offer_of("fal", DEV), "a fox [stuck]"), account)
    with pytest.raises(ProviderBusy):
        fal.submit(call_of(offer_of("fal", DEV)), account)
    with pytest.raises(ProviderBusy):
        fal.poll(ticket, account)
    assert stub.submits == 1


def test_the_webhook_goes_into_the_query(fal: FalProvider, stub: FalStub, account: Account) -> None:
    url = "https://farm.example/v1/provider-webhooks/fal?nonce=1&x=a b"
    fal.submit(call_of(offer_of("fal", DEV), webhook_url=url), account)
    assert stub.last.webhook == url
    assert "fal_webhook" not in stub.last.body


def test_a_size_beyond_fal_is_not_sent(fal: FalProvider, stub: FalStub, account: Account) -> None:
    with pytest.raises(ProviderRefused):
        fal.submit(call_of(offer_of("fal", DEV), width=4096, height=512), account)
    assert stub.submits == 0


def test_a_ticket_survives_as_json() -> None:
    ticket = Ticket(remote_id="a", poll_url="b", result_url="c", cancel_url="d")
    assert "key" not in repr(ticket)
