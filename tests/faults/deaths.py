"""Kills a remote worker at a named point of a paid call, once for each prompt that names it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

POINTS = (
    "before the POST",
    "after the POST",
    "after the ticket",
    "between polls",
    "in the download",
)


def install_deaths(marks: Path) -> None:
    """Patch the worker's own code: ``dies before the POST`` in a prompt is obeyed at the first call that has it."""
    from workers.providers import flight  # noqa: PLC0415  # after the clock is set
    from workers.providers.fal import FalProvider  # noqa: PLC0415

    doomed: dict[str, str] = {}  #: remote id: prompt
    polls: dict[str, int] = {}

    def die(prompt: str, point: str) -> None:
        if f"dies {point}" in prompt:
            try:
                (marks / f"{point.replace(' ', '-')}").touch(exist_ok=False)
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)

    submit, poll, download = FalProvider.submit, FalProvider.poll, vars(flight)["download"]

    def fateful_submit(self: Any, call: Any, account: Any) -> Any:
        die(call.prompt, "before the POST")
        ticket = submit(self, call, account)
        die(call.prompt, "after the POST")
        doomed[ticket.remote_id] = call.prompt
        return ticket

    def fateful_poll(self: Any, ticket: Any, account: Any) -> Any:
        prompt = doomed.get(ticket.remote_id, "")
        die(prompt, "after the ticket")
        if polls.setdefault(ticket.remote_id, 0):
            die(prompt, "between polls")
        polls[ticket.remote_id] += 1
        return poll(self, ticket, account)

    def fateful_download(*arguments: Any) -> Any:
        for prompt in doomed.values():
            die(prompt, "in the download")
        return download(*arguments)

    FalProvider.submit = fateful_submit  # type: ignore[method-assign]
    FalProvider.poll = fateful_poll  # type: ignore[method-assign]
    vars(flight)["download"] = fateful_download
