"""`fluxfarm keys`: the API keys of the farm."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from fluxfarm.cli_options import Json, client_of
from fluxfarm.cli_output import as_json, say, show, show_json, show_table

keys = typer.Typer(help="API keys of the farm.", no_args_is_help=True)


@keys.command("create")
def create_key(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What it is for.")],
    *,
    scope: Annotated[list[str] | None, typer.Option(help="What it may do. May be repeated.")] = None,
    expires_days: Annotated[int | None, typer.Option(min=1, max=36500, help="Days that it works.")] = None,
    json: Json = False,
) -> None:
    """Make a key and print it, this once."""
    end = datetime.now(UTC) + timedelta(days=expires_days) if expires_days is not None else None
    with client_of(context) as client:
        key = client.create_key(name, scopes=scope or (), expires_at=end)
    if json:
        show_json(as_json(key))
        return
    say(f"{key.id} {key.name}: keep the key, it is not shown again")
    show(key.secret or "")


@keys.command("list")
def list_keys(context: typer.Context, *, json: Json = False) -> None:
    """List the keys, without their text."""
    with client_of(context) as client:
        found = client.keys()
    if json:
        show_json({"data": [as_json(key) for key in found]})
        return
    rows = [
        (
            str(key.id),
            key.prefix,
            f"revoked {key.revoked_at:%Y-%m-%d}" if key.revoked_at else "live",
            f"{key.expires_at:%Y-%m-%d}" if key.expires_at else "-",
            ", ".join(key.scopes),
            key.name,
        )
        for key in found
    ]
    show_table(("id", "begins", "state", "expires", "scopes", "name"), rows)


@keys.command("revoke")
def revoke_key(
    context: typer.Context, key_id: Annotated[str, typer.Argument(metavar="ID")], *, json: Json = False
) -> None:
    """Stop a key at once."""
    with client_of(context) as client:
        client.revoke_key(key_id)
    if json:
        show_json({"revoked": key_id})
    else:
        show(f"{key_id} revoked")
