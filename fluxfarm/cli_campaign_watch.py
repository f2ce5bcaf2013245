"""The progress of a campaign on a terminal, or as lines in a pipe."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import typer
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from fluxfarm.campaigns.record import CampaignRecord, CampaignState, Counts
from fluxfarm.cli_output import ExitCode, say, show
from fluxfarm.client import Client

PAUSE: Final = 1.0  #: seconds between two looks
OVER: Final = (CampaignState.DONE, CampaignState.CANCELLED)


def follow(client: Client, name: str) -> None:
    """Show how it goes until it is over; Ctrl-C only stops the looking.

    Raises:
        typer.Exit: 1 when pictures failed, 130 on Ctrl-C.
    """
    try:
        record = _on_terminal(client, name) if sys.stdout.isatty() else _in_pipe(client, name)
    except KeyboardInterrupt:
        say(f"The campaign goes on. Come back with: fluxfarm campaign watch {name}")
        say(f"Hold it with: fluxfarm campaign pause {name}   End it with: fluxfarm campaign cancel {name}")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    failed = _now(record).failed
    if failed:
        say(f"{failed} failed. Try them again with: fluxfarm campaign retry {name}")
    if record.state is CampaignState.DONE:
        say(f"Get the pictures with: fluxfarm campaign export {name}")
    if failed or record.state is CampaignState.CANCELLED:
        raise typer.Exit(ExitCode.FAILED)


def _is_over(record: CampaignRecord) -> bool:
    return record.state in OVER and not _now(record).running


def _now(record: CampaignRecord) -> Counts:
    """Masters as soon as there are any, else drafts."""
    return record.files if record.drafts is None or record.files.total else record.drafts


def line_of(record: CampaignRecord, now: datetime) -> str:
    """``done 12/48, 0 failed, 30 images/min, 0.42 USD, 1 min 12 s left``."""
    counts = _now(record)
    budget = "" if record.budget is None else f" of {usd(record.budget)}"
    parts = [
        f"{record.state} {counts.success}/{counts.total}",
        f"{counts.failed} failed",
        f"{record.images_per_minute} images/min",
        f"{usd(record.spent)}{budget} USD",
    ]
    if record.eta is not None:
        parts.append(f"{_duration((record.eta.p50 - now).total_seconds())} left")
    return ", ".join(parts)


def usd(amount: Decimal) -> str:
    """To the cent, and further where there is more."""
    return f"{amount:.2f}" if amount == round(amount, 2) else f"{amount.normalize():f}"


def _duration(seconds: float) -> str:
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _in_pipe(client: Client, name: str) -> CampaignRecord:
    said = ""
    while True:
        record = client.campaigns.get(name)
        line = line_of(record, datetime.now(UTC))
        if line != said:
            show(line)
            sys.stdout.flush()
            said = line
        if _is_over(record):
            return record
        time.sleep(PAUSE)


def _on_terminal(client: Client, name: str) -> CampaignRecord:
    record = client.campaigns.get(name)
    with Live(_picture(record), console=Console(), refresh_per_second=4) as live:
        while not _is_over(record):
            time.sleep(PAUSE)
            record = client.campaigns.get(name)
            live.update(_picture(record))
    return record


def _picture(record: CampaignRecord) -> Table:
    counts = _now(record)
    table = Table.grid(padding=(0, 1))
    table.add_row(record.name, ProgressBar(total=max(1, counts.total), completed=counts.over, width=40))
    table.add_row("", line_of(record, datetime.now(UTC)))
    return table
