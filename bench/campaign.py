"""Ten thousand jobs of one tenant, accepted at once, and what another tenant's interactive jobs feel of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from fluxfarm.airecord import AiRecord
from fluxfarm.catalog import KLEIN_SMALL
from fluxfarm.client import Client

JOBS: Final = 10_000
SECONDS: Final = 60.0  #: of each half of the measurement
BEAT: Final = 1.0  #: seconds between two interactive jobs
SMALL: Final = {"model": KLEIN_SMALL.slug, "placements": ["64x64"], "steps": 2}


@dataclass(frozen=True, slots=True)
class Found:
    """Seconds, and renders a second of A alone and beside B; delays are from the 202 to the start."""

    accepted: float
    alone: float
    beside: float
    others: float  #: B's own renders a second
    render: float  #: the median of A's
    delay_median: float
    delay_p95: float


def spec(count: int) -> dict[str, Any]:
    """A campaign of so many small pictures."""
    rows = [{"sku": f"S{index}", "product": f"thing {index}"} for index in range(count)]
    return {"name": f"bench-{uuid4().hex[:8]}", "prompt": "{product}", "rows": rows, "key": "sku", **SMALL}


def _done(client: Client, name: str) -> int:
    return client.campaigns.get(name).files.success


def _interactive(client: Client) -> Iterator[AiRecord]:
    end = time.monotonic() + SECONDS
    due = time.monotonic()
    while time.monotonic() < end:
        yield client.submit("a lighthouse", model=KLEIN_SMALL.slug, size="64x64", steps=2)
        due += BEAT
        time.sleep(max(0.0, due - time.monotonic()))


def measure(a: Client, b: Client) -> Found:
    """``a`` and ``b`` are two tenants of one farm."""
    warm = a.submit("warm", model=KLEIN_SMALL.slug, size="64x64", steps=2)
    a.wait(warm.uuid, timeout=300)
    document = spec(JOBS)
    started = time.monotonic()
    name = a.campaigns.run(document).name
    accepted = time.monotonic() - started
    time.sleep(5)  # until the window is full
    first, began = _done(a, name), time.monotonic()
    time.sleep(SECONDS)
    alone = (_done(a, name) - first) / (time.monotonic() - began)
    first, began = _done(a, name), time.monotonic()
    jobs = list(_interactive(b))
    beside = (_done(a, name) - first) / (time.monotonic() - began)
    ended = [b.wait(job.uuid) for job in jobs]
    a.campaigns.cancel(name)
    delays = sorted((job.started_at - job.created_at).total_seconds() for job in ended if job.started_at is not None)
    samples = a.list(campaign=name, status="SUCCESS", limit=200).data
    renders = [job.attempts[-1].timings["render"] for job in samples if job.attempts]
    return Found(
        accepted=accepted,
        alone=alone,
        beside=beside,
        others=len(ended) / SECONDS,
        render=statistics.median(renders),
        delay_median=statistics.median(delays),
        delay_p95=delays[int(0.95 * (len(delays) - 1))],
    )
