"""Child processes that never outlive their reason: known by pid and start time, ended in steps, tied to the parent."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fluxfarm.errors import Conflict

LINUX: Final = sys.platform == "linux"
PR_SET_PDEATHSIG: Final = 1  #: prctl(2): the signal that a child gets when the thread that made it ends
TICK: Final = 0.02  #: seconds between two looks at a process that should end or become ready

_LIBC: Final = ctypes.CDLL(None, use_errno=True) if LINUX else None

Steps = tuple[tuple[signal.Signals, float], ...]  #: signals in turn, each with the seconds that it is given


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    started: str

    def is_alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        return started_at(self.pid) == self.started


def started_at(pid: int) -> str | None:
    """When the process began, as a text to compare and nothing else; None: there is no such process."""
    if LINUX:
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else f"{_boot()}:{fields[19]}"
    shown = subprocess.run(  # noqa: S603
        ["/bin/ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    return None if not shown or shown[0].startswith("Z") else " ".join(shown[1:])


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8]
    except OSError:
        return ""


def identify(pid: int) -> Identity | None:
    """The identity of a running process."""
    started = started_at(pid)
    return None if started is None else Identity(pid, started)


def remember(path: Path, identities: Mapping[str, Identity]) -> None:
    """Write down what was started, for the next run to end should this one be killed."""
    content = {name: {"pid": one.pid, "started": one.started} for name, one in identities.items()}
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(content), encoding="utf-8")
    new.replace(path)


def recall(path: Path) -> dict[str, Identity]:
    """What ``remember`` wrote; a missing or broken file holds nothing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: Identity(int(one["pid"]), str(one["started"])) for name, one in content.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    cwd: Path,
    env: Mapping[str, str],
    death_signal: signal.Signals = signal.SIGKILL,
    user: tuple[int, int] | None = None,
    stdin: bytes = b"",
    capture: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a process in its own session, so that a Ctrl-C at the terminal reaches only the supervisor.

    On Linux the process gets ``death_signal`` when the *thread* that calls this ends, even by kill -9; call it from a
    thread that lives as long as the process should. ``user`` is (uid, gid); its supplementary groups are dropped.
    ``capture`` keeps standard output out of the log, for the caller to read from a pipe.
    """
    uid, gid = user or (None, None)
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603
            list(argv),
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE if capture else output,
            stderr=output,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
            user=uid,
            group=gid,
            extra_groups=None if user is None else [],
            preexec_fn=_bind_to_parent(death_signal),  # noqa: PLW1509 (prctl works only inside the child)
        )
    if process.stdin is not None:
        with process.stdin, suppress(BrokenPipeError):
            process.stdin.write(stdin)
    return process


def _bind_to_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    libc, parent = _LIBC, os.getpid()
    if libc is None:
        return None

    def bind() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # it died before the call above
            os.kill(os.getpid(), signal.SIGKILL)

    return bind


def end(process: subprocess.Popen[bytes], steps: Steps) -> bool:
    """Send each signal in turn and wait its seconds; True: the process ended before the steps ran out."""
    for number, seconds in steps:
        if process.poll() is not None:
            return True
        send(process, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return True
    return process.poll() is not None


def send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a child; SIGKILL goes to its whole session, as nothing in there may live on without it."""
    if process.poll() is not None:
        return
    with suppress(ProcessLookupError, PermissionError):
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid, number)


def end_stranger(identity: Identity, steps: Steps) -> bool:
    """The same for a process of an earlier run; a recycled pid is left alone."""
    for number, seconds in steps:
        if not identity.is_alive():
            return True
        with suppress(ProcessLookupError):
            os.kill(identity.pid, number)
        until = time.monotonic() + seconds
        while identity.is_alive() and time.monotonic() < until:
            time.sleep(TICK)
    return not identity.is_alive()


class FolderLock:
    """One owner of a folder at a time; the kernel frees it when the owner dies, however it dies."""

    def __init__(self, path: Path) -> None:
        """``path`` is the lock file itself; it stays behind, empty."""
        self.path = path
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take it.

        Raises:
            Conflict: another process has it.
        """
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise Conflict(f"{self.path.parent} is in use by another process.") from error
        self._handle = handle

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def command_of(pid: int) -> str:
    """The name of the program that a process runs, or an empty text."""
    if LINUX:
        with suppress(OSError):
            return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
        return ""
    argv = ["/bin/ps", "-o", "comm=", "-p", str(pid)]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603


def rotate(log: Path) -> None:
    """Begin a new log; the one before is kept as ``….1``."""
    with suppress(FileNotFoundError):
        log.replace(log.with_name(log.name + ".1"))


def last_lines(path: Path, count: int = 15) -> str:
    """The end of a log, to show why something did not start."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-count:])
