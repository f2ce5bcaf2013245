"""Options that several commands share, and the client that the global ones ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fluxfarm.client import Client

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for scripts.")]
Uuid = Annotated[str, typer.Argument(metavar="UUID", help="The job.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="File or folder for the pictures; with -n 2: out-1.webp, …")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files.")]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the farm is, as the command line says it; None where it does not."""

    url: str | None
    api_key: str | None


def client_of(context: typer.Context) -> Client:
    """The client of the farm that the global options, the environment or the data folder name."""
    place: Place = context.obj
    return Client(place.url, place.api_key)
