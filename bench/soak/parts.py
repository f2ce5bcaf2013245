"""The farm of a soak: ``fluxfarm up`` with a second local worker, and webhooks that may go to one port of loopback.

``python -m bench.soak.parts up`` runs it; ``webhooks`` is its sender. Nothing else differs from what users run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Final

from fastapi import FastAPI

from api import main as api
from fluxfarm import farm, parts
from fluxfarm.outbound import Outlet
from fluxfarm.parts import Access, Part
from fluxfarm.settings import Settings
from fluxfarm.webhooks import OUTLET
from workers import __main__ as workers
from workers import celery
from workers.webhooks import WebhookSender

PORT: Final = "BENCH_RECEIVER_PORT"  #: the one port of loopback that webhooks may go to
SECOND: Final = "worker-b"  #: takes the jobs of the first one while that is frozen
ME: Final = "bench.soak.parts"


def outlet() -> Outlet:
    """Production's rules, but for the address, the port and the scheme."""
    ports = {int(os.environ[PORT])}
    return replace(OUTLET, allow_http=True, allowed_ports=ports, policy=lambda address: address.is_loopback)


def create_app() -> FastAPI:
    """The API, for uvicorn."""
    return api.create_app(outlet=outlet())


def soak_parts(settings: Settings, access: Access) -> tuple[Part, ...]:
    """What ``fluxfarm up`` starts, with the two changes."""
    return tuple(_changed(settings, access))


def _changed(settings: Settings, access: Access) -> Iterator[Part]:
    for part in parts.farm_parts(settings, access):
        if part.name == "api":
            argv = tuple(f"{ME}:create_app" if word == "api.main:create_app" else word for word in part.argv)
            yield replace(part, argv=argv)
        elif part.name == "webhooks":
            yield replace(part, argv=parts.python(ME, "webhooks"))
        else:
            yield part
        if part.name == "worker":
            yield replace(part, name=SECOND)


def main(arguments: list[str]) -> int:
    """Run the farm or its sender of webhooks."""
    if arguments == ["webhooks"]:
        celery.WebhookSender = partial(WebhookSender, outlet=outlet())  # type: ignore[assignment,attr-defined]
        return workers.main(["webhooks"])
    return farm.run(Settings(), replace(parts.FARM, parts=soak_parts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
