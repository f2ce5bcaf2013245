"""The stand-ins themselves: signed webhooks, faults by plan, the command that serves them all."""

from __future__ import annotations

import subprocess
import sys
import time

import httpx
import pytest
from pydantic import SecretStr

from fluxfarm.errors import Forbidden, OutcomeUnknown
from fluxfarm.inbound import Arrival, check_fal, check_replicate, read_jwks, usual_ticket
from fluxfarm.sizes import Size
from tests.conftest import ROOT
from tests.stubs import STUBS
from tests.stubs.fal import FalStub
from tests.stubs.hooks import REPLICATE_SECRET
from tests.stubs.replicate import ReplicateStub
from tests.stubs.server import KEY, Stub, serving
from tests.workers.providers.calls import DEV, account_at, call_of, failure_of, offer_of, run, sizes_of
from tests.workers.receiver import Arrived, receiving
from workers.providers.contract import Finished, Provider, Ticket
from workers.providers.fal import FalProvider
from workers.providers.replicate import ReplicateProvider

HOOKED: list[tuple[type[Stub], Provider]] = [(FalStub, FalProvider()), (ReplicateStub, ReplicateProvider())]


def told_by(stub: Stub, provider: Provider, prompt: str) -> list[Arrived]:
    """The webhooks that the stub sends for one call; it has sent them all when it is closed."""
    with receiving() as receiver:
        hook = f"http://127.0.0.1:{receiver.port}/v1/inbound"
        call = call_of(offer_of(provider.name, DEV), prompt, webhook_url=hook)
        with serving(stub) as base_url:
            if "[reset]" in prompt:
                assert type(failure_of(provider, call, account_at(base_url))) is OutcomeUnknown
            else:
                provider.submit(call, account_at(base_url))
        return receiver.arrived


def arrival(stub: Stub, told: Arrived) -> Arrival:
    if stub.name == "replicate":
        return check_replicate(told.headers, told.body, SecretStr(REPLICATE_SECRET), time.time())
    with serving(stub) as base_url:
        keys = httpx.get(f"{base_url}/.well-known/jwks.json", trust_env=False).json()
    return check_fal(told.headers, told.body, read_jwks(keys), time.time())


@pytest.mark.parametrize(("make", "provider"), HOOKED)
def test_a_webhook_is_signed_and_names_its_call(make: type[Stub], provider: Provider) -> None:
    stub = make()
    first, second = told_by(stub, provider, "a fox [hook-twice]")
    assert stub.told == [204, 204]
    assert arrival(stub, first) == arrival(stub, second)
    assert arrival(stub, first).remote_id == stub.last.id


@pytest.mark.parametrize(("make", "provider"), HOOKED)
@pytest.mark.parametrize("fault", ["hook-forged", "hook-old"])
def test_a_bad_webhook_is_refused(make: type[Stub], provider: Provider, fault: str) -> None:
    stub = make()
    (told,) = told_by(stub, provider, f"a fox [{fault}]")
    with pytest.raises(Forbidden):
        arrival(stub, told)


@pytest.mark.parametrize(("make", "provider"), HOOKED)
def test_a_lost_answer_is_found_again_by_the_webhook(make: type[Stub], provider: Provider) -> None:
    stub = make()
    (told,) = told_by(stub, provider, "a fox [reset]")
    remote_id = arrival(stub, told).remote_id
    with serving(stub) as base_url:
        endpoint = offer_of(stub.name, DEV).endpoints
        ticket = Ticket(**usual_ticket(stub.name, base_url, next(iter(endpoint.values())), remote_id))
        finished = provider.poll(ticket, account_at(base_url))
        assert isinstance(finished, Finished)
        assert sizes_of(finished) == [Size(1024, 768)]
    assert stub.accepted == 1


@pytest.mark.parametrize("fault", ["stuck", "no-hook"])
def test_what_never_ends_tells_nobody(fault: str) -> None:
    assert told_by(FalStub(), FalProvider(), f"a fox [{fault}]") == []


def test_faults_are_planned_from_another_process() -> None:
    stub = FalStub()
    with serving(stub) as base_url:
        account = account_at(base_url)
        httpx.post(f"{base_url}/_stub", json={"plan": ["busy"], "latency": 0}, trust_env=False)
        failure = failure_of(FalProvider(), call_of(offer_of("fal", DEV)), account)
        assert failure.retry_after == 7
        run(FalProvider(), call_of(offer_of("fal", DEV)), account)
        counts = httpx.get(f"{base_url}/_stub", trust_env=False).json()
    assert (counts["submits"], counts["accepted"], counts["plan"]) == (2, 1, [])


def test_the_command_serves_them_all() -> None:
    command = [sys.executable, "-m", "tests.stubs", "--port", "0", "--latency", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip().removeprefix("export ") for _ in range(13)]
        process.terminate()
        assert process.wait(10) == 0
    found = dict(line.split("=", 1) for line in lines)
    assert found["FLUXFARM_FAL_KEY"] == KEY
    assert found["FLUXFARM_FAL_URL"].startswith("http://127.0.0.1:")
    assert found["FLUXFARM_OPENAI_ENDPOINTS"].count("=http://127.0.0.1:") == 5
    assert set(STUBS) >= {"fal", "replicate", "bfl", "cloudflare", "onemin"}
