"""`fluxfarm render`: hand in a job, watch it, write its pictures; Ctrl-C cancels it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import FrameType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from fluxfarm.airecord import AiRecord
from fluxfarm.cli_output import as_json, say, show, show_json
from fluxfarm.client import Client
from fluxfarm.client_events import JobEvent
from fluxfarm.errors import Conflict, FluxfarmError, InvalidField, Unavailable
from fluxfarm.jobs import JobState
from fluxfarm.problems import raise_for_record

FORMATS: Final = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".avif": "avif", ".gif": "gif"}
LINES: Final = 10  #: progress lines at most where there is no terminal


@dataclass(frozen=True, slots=True)
class Target:
    """Where the pictures go: a file, a folder, or the present folder under the job's name."""

    path: Path | None
    force: bool

    def format(self, asked: str | None) -> str | None:
        """The format that is asked for, or else that the file's name tells.

        Raises:
            InvalidField: the two disagree, or the name tells a format that the farm does not write.
        """
        if self.path is None or self.path.is_dir() or not self.path.suffix:
            return asked
        told = FORMATS.get(self.path.suffix.lower())
        if told is None:
            known = ", ".join(FORMATS)
            raise InvalidField(f"{self.path.name} ends with no format that a farm writes ({known}).", param="output")
        if asked is not None and FORMATS.get(f".{asked.lower()}") != told:
            raise InvalidField(f"--format {asked} and the name {self.path.name} disagree.", param="output")
        return told

    def check(self, n: int) -> None:
        """See before anything is rendered that ``n`` files can be written.

        Raises:
            InvalidField: a file is in the way, or its folder is missing.
        """
        if self.path is None or self.path.is_dir():
            return
        if not self.path.parent.is_dir():
            raise InvalidField(f"There is no folder {self.path.parent}.", param="output")
        for path in _numbered(self.path, max(1, n)):
            if path.exists() and not self.force:
                raise InvalidField(f"{path} exists; --force overwrites it.", param="output")

    def write(self, record: AiRecord, images: list[bytes]) -> list[Path]:
        """The files that were written, one a picture.

        Raises:
            InvalidField: a file cannot be written.
        """
        path = self.path
        if path is None or path.is_dir():
            suffix = PurePosixPath(record.ai_record_detail.result_object[0]).suffix
            path = (path or Path()) / f"{record.uuid}{suffix}"
        paths = _numbered(path, len(images))
        for place, content in zip(paths, images, strict=True):
            _write(place, content, force=self.force)
        return paths


def _numbered(path: Path, n: int) -> list[Path]:
    if n == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(1, n + 1)]


def _write(path: Path, content: bytes, *, force: bool) -> None:
    try:
        file = path.open("wb" if force else "xb")
    except OSError as error:
        raise InvalidField(f"Cannot write {path}: {error.strerror}.", param="output") from error
    try:
        with file:
            file.write(content)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise InvalidField(f"Cannot write {path}: {error.strerror}.", param="output") from error


@contextmanager
def held_interrupt() -> Iterator[None]:
    """Ctrl-C takes effect at the end of the block, a second one at once: a job that is handed in gets known first."""
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    caught = False

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal caught
        if caught:
            raise KeyboardInterrupt
        caught = True

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if caught:
        raise KeyboardInterrupt


@contextmanager
def progress(record: AiRecord, *, quiet: bool) -> Iterator[Callable[[JobEvent], None]]:
    """Shows events on stderr: a live bar on a terminal, a few lines elsewhere, nothing when ``quiet``."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        bar = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))
        with bar:
            task = bar.add_task(str(record.status), total=record.progress.steps or None)
            yield lambda event: _move(bar, task, event)
    else:
        say(f"{record.uuid} {record.status}")
        yield _Lines(record.status)


def _move(bar: Progress, task: int, event: JobEvent) -> None:
    now = event.progress
    if event.status is not None:
        bar.update(task, description=str(event.status))  # type: ignore[arg-type]
    if now is not None:
        bar.update(task, completed=now.step, total=now.steps)  # type: ignore[arg-type]


class _Lines:
    """Every new state, and at most ten lines of progress."""

    def __init__(self, status: JobState) -> None:
        self._status = status
        self._shown = 0.0

    def __call__(self, event: JobEvent) -> None:
        now = event.progress
        if event.status not in (None, self._status):
            self._status, self._shown = event.status, 0.0
            say(str(event.status))
        elif now is not None and now.steps and now.step / now.steps >= self._shown + 1 / LINES:
            self._shown = now.step / now.steps
            say(f"{now.step}/{now.steps} steps")


def watch(client: Client, record: AiRecord, *, quiet: bool) -> AiRecord:
    """The record at the job's end."""
    with progress(record, quiet=quiet) as tell:
        try:
            for event in client.events(record.uuid):
                tell(event)
        except Unavailable:
            pass  # a proxy may swallow the stream; the record is the truth
    return client.wait(record.uuid, timeout=None)


def stop(client: Client, record: AiRecord, *, machine: bool) -> None:
    """Cancel the job and say what came of it."""
    try:
        canceled = client.cancel(record.uuid)
    except Conflict:
        canceled = client.get(record.uuid)
    except FluxfarmError as error:
        say(f"The job may go on; 'fluxfarm cancel {record.uuid}' stops it: {error.message}")
        return
    if machine:
        show_json({"aiRecord": as_json(canceled), "files": []})
    else:
        say(f"{canceled.uuid} {canceled.status}")


def fetch(client: Client, record: AiRecord, target: Target) -> list[Path]:
    """Download the pictures of a job that went well."""
    return target.write(record, [client.download(record, n) for n in range(len(record.temporary_urls))])


def report(record: AiRecord, files: list[Path], *, machine: bool) -> None:
    """The result: the record and its files for a program, the files for a person.

    Raises:
        RenderError: the job failed or was canceled.
    """
    if machine:
        show_json({"aiRecord": as_json(record), "files": [str(path) for path in files]})
    for path in files if not machine else []:
        show(str(path))
    raise_for_record(record)


def run(client: Client, body: dict[str, object], target: Target, *, wait: bool, machine: bool) -> None:
    """Hand the job in, watch it and write its pictures.

    Raises:
        RenderError: the job failed or was canceled.
        KeyboardInterrupt: Ctrl-C; the job has been canceled.
    """
    record: AiRecord | None = None
    try:
        with held_interrupt():
            record = client.submit_prepared(body)
        if wait:
            record = watch(client, record, quiet=machine)
    except KeyboardInterrupt:
        if record is not None:
            stop(client, record, machine=machine)
        raise
    if wait:
        files = fetch(client, record, target) if record.temporary_urls else []
        report(record, files, machine=machine)
    elif machine:
        show_json({"aiRecord": as_json(record), "files": []})
    else:
        show(str(record.uuid))
