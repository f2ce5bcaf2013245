"""The farm at a glance, and its changes as they happen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from api.dashboard import live, pages, plots, words
from api.dashboard.kept import Kept
from api.dashboard.plots import Plot
from api.dashboard.visitors import FollowerPart, Looking, Visitor, VisitorPart
from api.farm import Farm
from storage.database import Session
from storage.records import Worker
from storage.repository import ledger, overview, workers
from storage.repository.overview import Bin, OpenJobs, Render

BINS: Final = 36
WIDTH: Final = 600  #: seconds of a bin
FRESH: Final = 10.0  #: seconds that a plot is shown again
JUST_NOW: Final = 3.0  #: seconds that the queue is
PARTS: Final = ("tiles", "alerts", "queue", "workers", "plots")
LATE: Final = 60.0  #: seconds that the first interactive job may wait before it is an alert
LOCAL_HOSTS: Final = ("127.0.0.1", "localhost", "::1")

router = APIRouter()


@dataclass(frozen=True, slots=True)
class Working:
    """A worker and what it renders; ``own`` are the renders that the visitor may open."""

    worker: Worker
    renders: list[Render]
    own: set[UUID]


class Glances:
    """What each tenant saw last, read anew every few seconds however many people look."""

    def __init__(self) -> None:
        self._paces: Kept[list[Bin]] = Kept(FRESH)
        self._queues: Kept[list[OpenJobs]] = Kept(JUST_NOW)

    def pace(self, session: Session, tenant_id: UUID | None) -> list[Bin]:
        """The last six hours."""
        return self._paces.read(tenant_id, lambda: overview.pace(session, tenant_id, bins=BINS, width=WIDTH))

    def queue(self, session: Session, tenant_id: UUID | None) -> list[OpenJobs]:
        """What is not over."""
        return self._queues.read(tenant_id, lambda: overview.open_jobs(session, tenant_id))


@router.get("/")
def read_overview(request: Request, visitor: VisitorPart) -> Response:
    """Show it; what moves is sent by ``events`` afterwards."""
    with visitor.looking() as looking:
        shown = _glance(visitor.farm, looking, request.app.state.glances)
        return pages.page(request, "overview.html", looking, **shown, flower=_flower(visitor.farm, looking))


@router.get("/events")
async def follow(request: Request, visitor: FollowerPart) -> StreamingResponse:
    """The parts of the overview that changed, once a second at most."""
    return await live.parts(partial(_parts, visitor, request.app.state.glances))


def _parts(visitor: Visitor, glances: Glances) -> dict[str, str]:
    with visitor.looking() as looking:
        shown = _glance(visitor.farm, looking, glances)
    return {name: pages.render(f"overview_{name}.html", **shown) for name in PARTS}


def _glance(farm: Farm, looking: Looking, glances: Glances) -> dict[str, Any]:
    tenant_id = None if looking.is_operator else looking.caller.tenant_id
    open_jobs = glances.queue(looking.session, tenant_id)
    alive = workers.alive(looking.session)
    renders = overview.renders(looking.session)
    own = {one.uuid for one in renders if one.tenant_id == looking.caller.tenant_id}
    bins = glances.pace(looking.session, tenant_id)
    return {
        "queue": open_jobs,
        "several": len({one.tenant for one in open_jobs}) > 1,
        "working": [Working(worker, [one for one in renders if one.worker_id == worker.id], own) for worker in alive],
        "standing": ledger.standing(looking.session, looking.caller.tenant_id),
        "queued": sum(one.queued for one in open_jobs),
        "running": sum(one.running for one in open_jobs),
        "hour": sum(one.pictures for one in bins[-3600 // WIDTH :]),
        "oldest": max((one.oldest for one in open_jobs), default=0.0),
        "alerts": _alerts(farm, open_jobs, alive),
        "throughput": _throughput(bins),
        "waiting": _waiting(bins),
    }


def _alerts(farm: Farm, open_jobs: list[OpenJobs], alive: list[Worker]) -> list[str]:
    served = {model for worker in alive for model in worker.models}
    found = []
    if not alive:
        found.append("No worker is alive: jobs are accepted and wait. Start one with fluxfarm up, or see its log.")
    elif not farm.remotes.enabled:
        missing = sorted({one.model for one in open_jobs if one.queued and one.model not in served})
        found += [f"No live worker renders {model}; its jobs wait until one starts." for model in missing]
    late = [one for one in open_jobs if one.lane.rank == 0 and one.queued and one.oldest > LATE]
    if alive and late:
        longest = max(one.oldest for one in late)
        found.append(f"An interactive job has waited for {words.seconds(longest)}; add a worker, or look at the queue.")
    if not farm.changes.listening:
        found.append("Live updates are slower than usual: the API has lost its line to the database and calls again.")
    return found


def _hours(now: datetime) -> list[str]:
    begin = now - timedelta(seconds=BINS * WIDTH)
    return [f"{begin + timedelta(hours=hour):%H:%M}" for hour in range(7)]


def _titles(bins: list[Bin], now: datetime) -> list[str]:
    starts = [now - timedelta(seconds=(BINS - index) * WIDTH) for index in range(len(bins))]
    return [f"from {start:%H:%M}" for start in starts]


def _throughput(bins: list[Bin]) -> Plot:
    now = datetime.now(UTC)
    titles = [f"{one.pictures} pictures {title}" for one, title in zip(bins, _titles(bins, now), strict=True)]
    total = sum(one.pictures for one in bins)
    summary = f"{total:,} pictures in the last six hours, {max(one.pictures for one in bins)} at most in ten minutes."
    return plots.bars([one.pictures for one in bins], titles, _hours(now), "", summary)


def _waiting(bins: list[Bin]) -> Plot:
    now = datetime.now(UTC)
    titles = [f"{words.seconds(one.wait)} {title}" for one, title in zip(bins, _titles(bins, now), strict=True)]
    known = [one.wait for one in bins if one.wait is not None]
    summary = f"Jobs waited for {words.seconds(max(known))} at most." if known else "No job has started yet."
    return plots.bars([one.wait for one in bins], titles, _hours(now), " s", summary)


def _flower(farm: Farm, looking: Looking) -> str:
    """Where Flower is: it listens on the machine of the farm only, and has a password of its own."""
    here = urlsplit(farm.settings.base_url).hostname in LOCAL_HOSTS
    port = farm.settings.flower_port
    return f"http://127.0.0.1:{port}" if looking.is_operator and here and port else ""
