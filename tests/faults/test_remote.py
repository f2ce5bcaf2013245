"""Remote workers that die at each point of a paid call, local ones that are gone, a provider that dies under load."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from storage.database import Database
from tests.e2e.farms import wait_for
from tests.faults.sites import Site, running
from tests.making import MODEL
from tests.money import assert_balanced
from tests.stubs.fal import FalStub
from tests.stubs.replicate import ReplicateStub
from tests.stubs.server import KEY, serving

pytestmark = [pytest.mark.xdist_group("faults-remote"), pytest.mark.timeout(300)]

KLEIN = "black-forest-labs/flux-2-klein-4b"
PRICE, PRICE_AT_REPLICATE = Decimal("0.005"), Decimal("0.014")


@dataclass
class Market:
    """A farm with two providers; fal's server can be ended."""

    site: Site
    fal: FalStub
    replicate: ReplicateStub
    fal_server: ExitStack
    fal_port: int

    def revive_fal(self) -> None:
        """At its old address; tests run in any order."""
        self.fal_server.close()
        self.fal_server.enter_context(serving(self.fal, self.fal_port))

    def post(self, prompt: str = "a fox", **changes: Any) -> str:
        asked = {"prompt": prompt, "size": "512x512", "output_format": "png"}
        body = {"type": "IMAGE_GENERATOR", "model": KLEIN, "promptObject": asked, **changes}
        url = f"{self.site.url}/v1/jobs"
        reply = httpx.post(url, json=body, headers=self.site.headers, timeout=40, trust_env=False)
        assert reply.status_code == 202, reply.text
        uuid: str = reply.json()["aiRecord"]["uuid"]
        return uuid

    def check_ledger(self) -> None:
        database = Database(SecretStr(self.site.postgres.url), pool_size=2)
        assert_balanced(database)
        database.close()


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    fal, replicate = FalStub(), ReplicateStub()
    with ExitStack() as servers, ExitStack() as fal_server:
        fal_url = fal_server.enter_context(serving(fal))
        environment = {
            "FLUXFARM_FAL_URL": fal_url,
            "FLUXFARM_FAL_KEY": KEY,
            "FLUXFARM_REPLICATE_URL": servers.enter_context(serving(replicate)),
            "FLUXFARM_REPLICATE_KEY": KEY,
            "FLUXFARM_MODELS": f"{MODEL},{KLEIN}=/nowhere",
            "FLUXFARM_REMOTE_PATIENCE": "2",
            "FLUXFARM_REMOTE_SLOTS": "16",
            "FLUXFARM_PROVENANCE": "xmp",
        }
        folder = tmp_path_factory.mktemp("market")
        options = {"worker": "", "scheduler": "", "remote": ""}
        with running(folder, options=options, environment=environment) as site:
            yield Market(site, fal, replicate, fal_server, int(fal_url.rpartition(":")[2]))


@pytest.mark.parametrize(
    ("point", "state", "accepted"),
    [
        ("before the POST", "FAILED", 0),
        ("after the POST", "FAILED", 1),
        ("after the ticket", "SUCCESS", 1),
        ("between polls", "SUCCESS", 1),
        ("in the download", "SUCCESS", 1),
    ],
)
def test_a_killed_remote_worker_pays_once_at_most(market: Market, point: str, state: str, accepted: int) -> None:
    site = market.site
    site.mend()
    before = market.fal.accepted, market.replicate.accepted
    uuid = market.post(f"dies {point} [slow]", provider="fal")
    assert site.programs["remote"].wait(30) == -signal.SIGKILL
    site.programs["remote"].start()
    record = site.finished(uuid, 60)
    assert record["status"] == state, f"{record}\n{site.said()}"
    assert (market.fal.accepted - before[0], market.replicate.accepted - before[1]) == (accepted, 0)
    if state == "FAILED":
        assert record["error"]["code"] == "outcome_unknown"
    assert Decimal(record["cost"]) == PRICE
    market.check_ledger()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_job_whose_local_worker_is_gone_flows_to_a_provider_within_two_seconds(
    market: Market, number: signal.Signals
) -> None:
    site = market.site
    site.mend()
    assert site.finished(market.post())["attempts"][-1]["provider"] == "local"
    site.worker.send(signal.SIGSTOP)
    waiting = market.post("it waits for a worker that will not come back")
    assert site.record(waiting)["status"] == "QUEUED"
    site.worker.send(number)
    site.worker.send(signal.SIGCONT)
    site.worker.wait(20)
    gone = time.time()
    fresh = market.post("it comes when there is none")
    for uuid in (waiting, fresh):
        record = site.finished(uuid)
        attempt = record["attempts"][-1]
        assert (record["status"], attempt["provider"]) == ("SUCCESS", "fal"), record
        started = datetime.fromisoformat(attempt["startedAt"]).timestamp()
        assert started - gone < 3, f"{started - gone:.2f} s"  # two, and one of patience with a loaded machine
    site.worker.start()


def test_a_provider_that_dies_under_load_loses_no_job_and_no_cent(market: Market) -> None:
    site, count = market.site, 200
    site.mend()
    market.fal.latency = market.replicate.latency = 0.2
    spent = Decimal(site.get("/v1/usage").json()["spent"])
    taken = market.fal.accepted, market.replicate.accepted
    uuids = [market.post(f"one of many, {n}", provider="fal", fallback=["replicate"]) for n in range(count)]
    done = "SELECT count(*) FROM jobs WHERE uuid = ANY (%s) AND status = 'SUCCESS'"
    wait_for(lambda: site.sql(done, uuids)[0][0] >= 40, 120)
    market.fal_server.close()
    try:
        wait_for(lambda: site.sql(done, uuids)[0][0] == count, 200)
    finally:
        market.revive_fal()
        market.fal.latency = market.replicate.latency = 0.0
        site.redis().flushall()  # the breaker is closed for the next test, too
    found = site.get("/v1/usage").json()
    assert Decimal(found["reserved"]) == 0
    at_fal, at_replicate = market.fal.accepted - taken[0], market.replicate.accepted - taken[1]
    assert Decimal(found["spent"]) - spent <= at_fal * PRICE + at_replicate * PRICE_AT_REPLICATE
    providers = site.sql(
        "SELECT provider, count(*) FROM attempts WHERE job_uuid = ANY (%s) AND status = 'SUCCESS' GROUP BY 1", uuids
    )
    assert {provider for provider, _ in providers} == {"fal", "replicate"}
    assert market.fal.accepted + market.replicate.accepted >= count
    market.check_ledger()
