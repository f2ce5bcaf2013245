"""What the command line says: results on stdout, everything else on stderr, and the exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import IntEnum
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fluxfarm.airecord import AiRecord
from fluxfarm.errors import (
    FluxfarmError,
    Forbidden,
    InvalidCampaign,
    ModelNotFound,
    NotFound,
    RenderError,
    TooManyRequests,
    Unauthorized,
)


class ExitCode(IntEnum):
    """What a script can tell from a command's end."""

    OK = 0
    FAILED = 1  #: the job failed or was canceled; the doctor found a fault
    BAD_INPUT = 2  #: it cannot be done as it was asked: usage, a refused value, a file that cannot be written
    UNREACHABLE = 3  #: no farm answers, or it cannot serve now (429, 5xx)
    REFUSED = 4  #: the key does not open it, or there is no such thing
    INTERRUPTED = 130  #: Ctrl-C; the job of `render` is canceled


HELP = (
    "Exit codes: 0 done; 1 the job failed or was canceled, or the doctor found a fault; 2 bad usage or input; "
    "3 no farm answers, or it cannot serve now; 4 the key is refused, or there is no such thing; 130 Ctrl-C."
)


def exit_code(error: FluxfarmError) -> ExitCode:
    """The exit code that this error ends a command with."""
    if isinstance(error, RenderError):
        return ExitCode.FAILED
    if isinstance(error, TooManyRequests) or error.status >= 500:  # noqa: PLR2004
        return ExitCode.UNREACHABLE
    if isinstance(error, Unauthorized | Forbidden | NotFound) and not isinstance(error, ModelNotFound):
        return ExitCode.REFUSED
    return ExitCode.BAD_INPUT


def plain(text: str) -> str:
    """The text without what could steer a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def say(line: str) -> None:
    """A line for a person, on stderr."""
    sys.stderr.write(plain(line) + "\n")
    sys.stderr.flush()


def show(line: str) -> None:
    """A line of the result, on stdout."""
    sys.stdout.write(plain(line) + "\n")


def show_json(value: object) -> None:
    """The result as one JSON value on stdout; in ASCII, so that no locale can break it."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def as_json(model: BaseModel) -> Any:
    """The JSON form of a reply."""
    return model.model_dump(mode="json", by_alias=True, exclude_unset=True)


def complain(error: FluxfarmError, *, machine: bool) -> None:
    """The farm's sentence and code, on stderr; for a program the same fields as the farm's problem+json."""
    issues = error.issues if isinstance(error, InvalidCampaign) else ()
    if not machine:
        for issue in issues:
            say(f"  {issue}")
        say(f"Error: {error.message} [{error.code}]" if len(issues) < 2 else f"Error: {_total(error)} [{error.code}]")  # noqa: PLR2004
        return
    fields = {
        "type": f"urn:fluxfarm:problem:{error.code}",
        "title": error.code.replace("_", " ").capitalize(),
        "status": None if isinstance(error, RenderError) else error.status,
        "detail": error.message,
        "code": error.code,
        "param": error.param,
        "retryable": error.retryable,
        "retryAfter": error.retry_after,
        "issues": [asdict(issue) for issue in issues] or None,
    }
    complain_json(fields)


def _total(error: FluxfarmError) -> str:
    total = error.total if isinstance(error, InvalidCampaign) else 1
    return f"{total:,} things are wrong with the campaign; nothing was made."


def complain_json(fields: Mapping[str, object]) -> None:
    """A problem as one line of JSON on stderr."""
    told = {name: value for name, value in fields.items() if value is not None}
    sys.stderr.write(json.dumps(told) + "\n")


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal; lines of tab-separated cells in a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            sys.stdout.write("\t".join(plain(cell) for cell in row) + "\n")
        return
    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap = True
    table.columns[0].overflow = "fold"
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    Console().print(table)


def show_record(record: AiRecord) -> None:
    """A job, one fact a line."""
    show(f"uuid      {record.uuid}")
    show(f"status    {record.status}")
    show(f"model     {record.model}")
    show(f"created   {record.created_at:%Y-%m-%d %H:%M:%S %Z}")
    show(f"progress  {record.progress.step}/{record.progress.steps} steps")
    if record.attempts:
        last = record.attempts[-1]
        seeds = ", ".join(str(seed) for seed in last.seeds)
        show(f"attempt   {last.number} by {last.worker or last.provider}, seeds {seeds}")
    if record.tags:
        show(f"tags      {', '.join(record.tags)}")
    if record.error is not None:
        show(f"error     {record.error.message} [{record.error.code}]")
    for link in record.temporary_urls:
        show(f"picture   {link}")
