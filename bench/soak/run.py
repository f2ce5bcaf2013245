"""``python -m bench.soak --minutes 30``: all dies at random under load; is anything lost, doubled or left behind?

``make bench ARGS="soak --minutes 30"`` is the same. It needs an S3 server (rclone, of the extra ``dev``) and about
2 GiB of memory; it takes the minutes, a tenth more of calm, and some more until all is at its end. 1: a promise was
broken.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import httpx

from bench.soak import checks, figures, parts
from bench.soak.checks import Findings
from bench.soak.faults import Faults
from bench.soak.house import House
from bench.soak.load import Callers, Journal
from bench.soak.receiver import Received, receiving
from bench.soak.report import Outcome, page
from bench.soak.store import Bucket, opened
from bench.soak.watch import Seen, probe, sample
from fluxfarm.farmfile import RunningFarm
from tests.stubs.fal import FalStub
from tests.stubs.server import KEY, serving

CALM: Final = 0.1  #: of the minutes
PRICE: Final = "1"  #: USD of a second of a render: every success is charged


def main(arguments: Sequence[str]) -> int:
    """Run it, print the page and write it where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="of faults (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=3.0, help="calls a second (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of load and faults (default: a new one)")
    parser.add_argument("--out", type=Path, default=None, help="file for the page")
    parser.add_argument("--keep", action="store_true", help="keep the folder with data and logs, and name it")
    chosen = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    seed = secrets.randbelow(10_000) if chosen.seed is None else chosen.seed
    folder = Path(tempfile.mkdtemp(prefix="fluxfarm-soak-"))
    folder.chmod(0o711)
    outcome = None
    try:
        outcome = run(folder, minutes=chosen.minutes, rate=chosen.rate, seed=seed)
    finally:
        if chosen.keep or outcome is None or outcome.findings.broken:
            print(f"The data and the logs are in {folder}.", flush=True)
        else:
            shutil.rmtree(folder)
    text = page(outcome)
    print(text)
    if chosen.out is not None:
        chosen.out.write_text(text, encoding="utf-8")
    return int(bool(outcome.findings.broken))


def run(folder: Path, *, minutes: float, rate: float, seed: int) -> Outcome:
    """One soak in a folder of its own."""
    with ExitStack() as stack:
        bucket = stack.enter_context(opened(folder / "s3"))
        port, received = stack.enter_context(receiving(seed))
        stub = FalStub(latency=1.0)
        provider = stack.enter_context(serving(stub))
        assert bucket.door is not None
        house = House(folder, environment(bucket, bucket.door.url, port, provider))
        stack.callback(house.stop)
        farm = house.start()
        key, webhook = prepare(farm, port, received)
        soak = Soak(house, bucket, farm, key, webhook, seed)
        asyncio.run(soak.go(minutes, rate))
        findings = Findings()
        checks.drain(house, findings)
        checks.check_jobs(house, soak.journal, findings)
        checks.check_objects(house, bucket.direct(), findings)
        checks.check_webhooks(house, received, findings)
        checks.check_provider(house, stub, findings)
        findings.note("an answer that nobody expects", soak.journal.refused)
        findings.note("a call that was never answered", soak.journal.unanswered)
        return Outcome(
            seed=seed,
            day=figures.stamp(soak.began)[:10],
            minutes=minutes,
            rate=rate,
            began=soak.began,
            calmed=soak.calmed,
            loaded=soak.loaded,
            journal=soak.journal,
            findings=findings,
            faults=soak.faults.happened,
            again=figures.running_again(house, soak.faults.happened),
            seen=soak.seen,
            received=received,
            taken=len(stub.jobs),
            stored=sum(one.stat().st_size for one in folder.rglob("*") if one.is_file()),
        )


def environment(bucket: Bucket, store: str, receiver: int, provider: str) -> dict[str, str]:
    """What the farm is told, beside its own places."""
    return {
        **bucket.environment(store),
        parts.PORT: str(receiver),
        "FLUXFARM_LOG_LEVEL": "WARNING",
        "FLUXFARM_RATE_LIMIT": "100000000",
        "FLUXFARM_GPU_SECOND_PRICE": PRICE,
        "FLUXFARM_FAL_KEY": KEY,
        "FLUXFARM_FAL_URL": provider,
        "FLUXFARM_MODELS": "fluxfarm/flux-2-klein-small",
    }


def prepare(farm: RunningFarm, port: int, received: Received) -> tuple[str, str]:
    """A key that outlives the farm's runs, and the URL of the receiver's endpoint."""
    headers = {"Authorization": f"Bearer {farm.api_key}"}
    with httpx.Client(base_url=farm.url, headers=headers, timeout=30, trust_env=False) as http:
        scopes = {"name": "soak", "scopes": ["render", "read", "campaigns", "admin"]}
        key = http.post("/v1/keys", json=scopes).raise_for_status().json()
        endpoint = http.post("/v1/webhooks", json={"url": f"http://127.0.0.1:{port}/hook"}).raise_for_status().json()
    received.secret = endpoint["secret"]
    return str(key["secret"]), str(endpoint["url"])


class Soak:
    """The time under load; moments are seconds of the wall clock."""

    def __init__(self, house: House, bucket: Bucket, farm: RunningFarm, key: str, webhook: str, seed: int) -> None:
        """Nothing happens yet."""
        self.journal, self.seen = Journal(), Seen()
        self.faults = Faults(house, bucket, seed)
        self._house, self._bucket, self._key = house, bucket, key
        self._callers = partial(Callers, farm, key, webhook, self.journal, seed)
        self.began = self.calmed = self.loaded = 0.0

    async def go(self, minutes: float, rate: float) -> None:
        """Faults under load, then load alone."""
        ended = asyncio.Event()
        watchers = [
            asyncio.create_task(probe(self._house, self._key, self.seen, ended)),
            asyncio.create_task(sample(self._house, self.journal, self.seen, ended)),
            asyncio.create_task(self._tell(ended)),
        ]
        callers = self._callers()
        self.began = time.time()
        enough = asyncio.Event()
        calls = asyncio.create_task(callers.call(enough, rate))
        await self.faults.run(time.monotonic() + 60 * minutes)
        self.calmed = time.time()
        await asyncio.sleep(60 * minutes * CALM)
        enough.set()
        await calls
        self.loaded = time.time()
        ended.set()
        await asyncio.gather(*watchers)
        await callers.close()

    async def _tell(self, ended: asyncio.Event) -> None:
        """A line a minute for whoever waits; what the door remembers is forgotten, as it would fill the memory."""
        while not ended.is_set():
            if self._bucket.door is not None:
                self._bucket.door.calls.clear()
            print(
                f"{figures.stamp(time.time())}: {self.journal.acknowledged} promised, {self.journal.open_jobs} open, "
                f"{len(self.faults.happened)} faults, {len(self.journal.refused)} strange answers",
                flush=True,
            )
            try:
                await asyncio.wait_for(ended.wait(), 60)
            except TimeoutError:
                continue
