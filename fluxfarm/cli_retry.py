"""`fluxfarm retry`: failed jobs, tried again."""

from __future__ import annotations

from fluxfarm.cli_output import as_json, say, show, show_json
from fluxfarm.client import Client


def one(client: Client, uuid: str, *, machine: bool) -> None:
    """Retry a job and print the new one's uuid."""
    record = client.retry(uuid)
    if machine:
        show_json({"aiRecord": as_json(record)})
    else:
        show(str(record.uuid))


def failed(client: Client, *, error: str | None, campaign: str | None, tag: str | None, machine: bool) -> None:
    """Retry all that fit and print the new uuids; what cannot be retried is said on stderr."""
    done = client.retry_failed(error=error, campaign=campaign, tag=tag)
    if machine:
        show_json({"retried": len(done.jobs), **as_json(done)})
        return
    for uuid in done.jobs:
        show(str(uuid))
    for left in done.skipped:
        say(f"{left.job} cannot be retried: {left.code}")
    say(f"{len(done.jobs)} retried")
