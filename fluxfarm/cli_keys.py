"""`fluxfarm keys`: the API keys of the farm."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from fluxfarm.cli_options import Json, client_of
from fluxfarm.cli_output import as_json, say, show, show_json, show_table
from fluxfarm.client_replies import KeyReply

keys = typer.Typer(help="API keys of the farm.", no_args_is_help=True)


@keys.command("create")
def create_key(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What it is for.")],
    *,
    scope: Annotated[list[str] | None, typer.Option(help="What it may do. May be repeated.")] = None,
    expires_days: Annotated[int | None, typer.Option(min=1, max=36500, help="Days that it works.")] = None,
    rate_limit: Annotated[int | None, typer.Option(min=1, help="Calls a minute, if fewer than usual.")] = None,
    tenant: Annotated[str | None, typer.Option(metavar="ID", help="For an operator: whose key it is.")] = None,
    json: Json = False,
) -> None:
    """Make a key and print it, this once."""
    end = datetime.now(UTC) + timedelta(days=expires_days) if expires_days is not None else None
    with client_of(context) as client:
        key = client.create_key(name, scopes=scope or (), expires_at=end, rate_limit=rate_limit, tenant=tenant)
    _show_once(key, json=json)


@keys.command("rotate")
def rotate_key(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    grace: Annotated[int | None, typer.Option(min=0, help="Seconds that the old key still works; a day.")] = None,
    json: Json = False,
) -> None:
    """Make a key like an old one, which works on for a while, and print it, this once."""
    with client_of(context) as client:
        key = client.rotate_key(key_id, grace=grace)
    _show_once(key, json=json)


def _show_once(key: KeyReply, *, json: bool) -> None:
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
            _state(key),
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


def _state(key: KeyReply) -> str:
    if key.revoked_at:
        return f"revoked {key.revoked_at:%Y-%m-%d}"
    return "live" if key.replaced_by is None else f"rotated to {key.replaced_by}"
