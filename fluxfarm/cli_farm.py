"""`fluxfarm up`, `demo` and `doctor`: the farm on this machine; they need the checkout, other commands do not."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from fluxfarm import demo as demonstration
from fluxfarm import doctor as doctors
from fluxfarm import farm
from fluxfarm.cli_output import ExitCode, show, show_json
from fluxfarm.client_place import read_settings


def up() -> None:
    """Run the farm on this machine until Ctrl-C: database, broker, API, worker, scheduler and Flower."""
    raise typer.Exit(farm.run(read_settings()))


def demo() -> None:
    """Start a farm, render one picture into the folder demo, print its record, stop."""
    raise typer.Exit(demonstration.run(read_settings()))


def doctor(*, json: Annotated[bool, typer.Option("--json", help="JSON on stdout, for scripts.")] = False) -> None:
    """Say what is missing on this machine and what to do; ends with 1 when something must be mended."""
    findings = doctors.check(read_settings())
    if json:
        show_json({"findings": [asdict(finding) for finding in findings]})
    for finding in findings if not json else []:
        show(f"{finding.status:4}  {finding.name}: {finding.what}")
        if finding.advice and finding.status != "ok":
            show(f"      {finding.advice}")
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(ExitCode.FAILED)
