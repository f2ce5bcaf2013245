"""`fluxfarm webhooks`: who is told of the ends of jobs."""

from __future__ import annotations

from typing import Annotated

import typer

from fluxfarm.cli_options import Json, client_of
from fluxfarm.cli_output import as_json, say, show, show_json, show_table

webhooks = typer.Typer(help="Who is told of the ends of jobs.", no_args_is_help=True)


@webhooks.command("create")
def create_webhook(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="https, port 443, on the public Internet.")],
    *,
    json: Json = False,
) -> None:
    """Make an endpoint and print the secret that verifies its messages."""
    with client_of(context) as client:
        made = client.create_webhook(url)
    if json:
        show_json(as_json(made))
        return
    say(f"{made.id} {made.url}: verify its messages with this secret")
    show(made.secret or "")


@webhooks.command("list")
def list_webhooks(context: typer.Context, *, json: Json = False) -> None:
    """List the endpoints."""
    with client_of(context) as client:
        found = client.webhooks()
    if json:
        show_json({"data": [as_json(one) for one in found]})
        return
    rows = [(one.id, f"disabled {one.disabled_at:%Y-%m-%d}" if one.disabled_at else "live", one.url) for one in found]
    show_table(("id", "state", "url"), rows)


@webhooks.command("replay")
def replay_webhook(
    context: typer.Context, delivery: Annotated[str, typer.Argument(metavar="MSG_ID")], *, json: Json = False
) -> None:
    """Send a message again, under the same id."""
    with client_of(context) as client:
        sent = client.replay_webhook(delivery)
    if json:
        show_json(as_json(sent))
    else:
        show(f"{sent.id} is sent again")
