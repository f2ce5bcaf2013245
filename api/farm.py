"""The parts of one API process; made when it starts, closed when it ends, handed to routes through the application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final, Self

from anyio import CapacityLimiter
from fastapi import Depends, Request

from api.jwks import Jwks
from api.limits import Rates
from api.metrics import Metrics
from api.open_calls import OpenCalls
from api.releases import Releases
from api.waiting import Changes
from fluxfarm import outbound, webhooks
from fluxfarm.outbound import Outlet
from fluxfarm.remotes import Remotes
from fluxfarm.settings import Settings
from fluxfarm.tracing import Tracing
from storage.board import Board
from storage.database import Database
from storage.delivery import Delivery
from storage.dispatcher import Dispatcher
from storage.entrance import Entrance
from storage.gates import Gates
from storage.notifier import Notifier
from storage.objects import HASTY, ObjectStore, make_store
from storage.polls import Polls
from storage.previews import Previews
from storage.provenance import Provenance
from storage.queue import Queue
from storage.replica import Replica
from storage.sealing import Sealer
from storage.signing_identity import identity
from storage.watermark import Watermark, open_watermark

PICTURE_THREADS: Final = 8  #: requests that fetch or redraw pictures at once; the other threads stay free for the rest
FETCH_SECONDS: Final = 10.0  #: for one reference URL, from the DNS query to the last byte

Fetch = Callable[[str], bytes]


@dataclass(slots=True, kw_only=True)
class Farm:
    """Everything that a route needs; no part of it connects before it is used."""

    settings: Settings
    database: Database
    replica: Replica  #: for lists
    polls: Polls
    entrance: Entrance
    queue: Queue
    dispatcher: Dispatcher
    notifier: Notifier
    sealer: Sealer
    delivery: Delivery  #: links to pictures that the API serves itself
    outlet: Outlet  #: where webhooks may go
    store: ObjectStore
    changes: Changes
    previews: Previews
    remotes: Remotes
    gates: Gates  #: breakers of the providers' accounts
    jwks: Jwks  #: fal's keys
    board: Board  #: what is known of the providers
    metrics: Metrics
    provenance: Provenance  #: reads what pictures say of their making
    watermark: Watermark | None  #: finds the invisible mark
    rates: Rates
    open_calls: OpenCalls
    releases: Releases  #: idempotency keys that could not be given up yet
    tracing: Tracing
    fetch: Fetch  #: the picture behind a stranger's URL
    pictures: CapacityLimiter  #: threads for what may take seconds: fetching and redrawing pictures

    @classmethod
    def open(cls, settings: Settings, fetch: Fetch | None = None, outlet: Outlet = webhooks.OUTLET) -> Self:
        """The parts that the settings name."""
        database = Database.from_settings(settings)
        queue = Queue(settings)
        remotes, gates = Remotes.from_settings(settings), Gates(settings)
        sealer = Sealer.from_settings(settings)
        return cls(
            settings=settings,
            database=database,
            replica=Replica(settings, database),
            polls=Polls(settings.database_url),
            entrance=Entrance(database),
            queue=queue,
            dispatcher=Dispatcher(database, queue, window=settings.window),
            notifier=Notifier(database, queue),
            sealer=sealer,
            delivery=Delivery.of(settings, sealer),
            outlet=outlet,
            store=make_store(settings, HASTY),
            changes=Changes(settings.database_url),
            previews=Previews(settings.redis_url),
            remotes=remotes,
            gates=gates,
            jwks=Jwks(),
            board=Board(database, remotes, gates),
            metrics=Metrics(database),
            provenance=Provenance(identity(settings)),
            watermark=open_watermark(settings),
            rates=Rates(settings, database),
            open_calls=OpenCalls(settings),
            releases=Releases(database),
            tracing=Tracing.from_settings(settings, "api"),
            fetch=fetch or partial(fetch_picture, settings),
            pictures=CapacityLimiter(PICTURE_THREADS),
        )

    def close(self) -> None:
        """Give every connection back."""
        self.releases.close()
        self.database.close()
        self.replica.close()
        self.queue.close()
        self.previews.close()
        self.rates.close()
        self.gates.close()
        self.store.close()
        self.tracing.close()


def fetch_picture(settings: Settings, url: str) -> bytes:
    """What a reference URL points to.

    Raises:
        ForbiddenUrl: the farm does not open it.
        UnreachableUrl: it did not answer with at most ``settings.upload_limit`` bytes in time.
    """
    return outbound.fetch(
        url,
        limit_bytes=settings.upload_limit,
        deadline_seconds=FETCH_SECONDS,
        allow_http=settings.allow_http_references,
    ).body


async def the_farm(request: Request) -> Farm:
    """The parts, as a dependency."""
    farm: Farm = request.app.state.farm
    return farm


FarmPart = Annotated[Farm, Depends(the_farm)]
