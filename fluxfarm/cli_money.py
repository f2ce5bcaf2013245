"""`fluxfarm usage` and `fluxfarm providers`: what jobs cost, and how providers did."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from fluxfarm.cli_options import Json, client_of
from fluxfarm.cli_output import as_json, say, show_json, show_table
from fluxfarm.client_money import usd


def usage(
    context: typer.Context,
    *,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How far back.")] = 30,
    json: Json = False,
) -> None:
    """Show what jobs cost, by provider, campaign and day."""
    with client_of(context) as client:
        found = client.usage(since=datetime.now(UTC) - timedelta(days=days))
    if json:
        show_json(as_json(found))
        return
    say(f"spent {usd(found.spent)} USD, reserved {usd(found.reserved)}, left of the budget {usd(found.left)}")
    parts = (("provider", found.by_provider), ("campaign", found.by_campaign), ("day", found.by_day))
    rows = [(kind, one.name or "-", usd(one.amount), str(one.jobs)) for kind, part in parts for one in part]
    show_table(("by", "name", "USD", "jobs"), rows)


def providers(
    context: typer.Context,
    *,
    window: Annotated[str, typer.Option(help="24h or 30d.")] = "24h",
    json: Json = False,
) -> None:
    """Show how each provider did lately: success, seconds, price, breaker."""
    with client_of(context) as client:
        found = client.providers(window)
    if json:
        show_json({"data": [as_json(one) for one in found]})
        return
    rows = [
        (
            one.provider,
            one.model or "all",
            "-" if one.success is None else f"{one.success:.1%}",
            _seconds(one.p50),
            _seconds(one.p95),
            usd(one.price),
            str(one.attempts),
            one.breaker.state if one.breaker is not None else "-",
        )
        for one in found
    ]
    show_table(("provider", "model", "success", "p50", "p95", "USD", "attempts", "breaker"), rows)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
