"""``fluxfarm up``: starts every part of a farm on this machine, keeps them running, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Final, NoReturn

import httpx
from pydantic import SecretStr

from fluxfarm import farmfile, parts, processes
from fluxfarm.children import Child, Keeper
from fluxfarm.embedded import Postgres, Valkey
from fluxfarm.errors import Conflict, FluxfarmError, InvalidField, Unavailable
from fluxfarm.farmfile import PIDS, SUPERVISOR, RunningFarm
from fluxfarm.parts import Access, Plan
from fluxfarm.processes import FolderLock, Identity, Steps
from fluxfarm.settings import Settings

READY_TIMEOUT: Final = 300.0  #: seconds; a first start imports torch and builds the small models
COMMAND_TIMEOUT: Final = 120.0  #: seconds for the migrations, and for the first key
GRACE: Final = 20.0  #: seconds in which a worker may finish its render when the farm stops
TICK: Final = 0.1  #: seconds between two looks at the children
STRANGERS: Final[Steps] = ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0))
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
KEY_NAME: Final = "fluxfarm up"


class _Stop(Exception):
    """Somebody asked the farm to stop; never leaves this module."""


class Farm:
    """One run of a farm; ``serve`` may be called once."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        """Nothing is started or written yet."""
        self._plan = plan
        self._shown_dir = settings.data_dir
        self._settings = settings
        self._data_dir = settings.data_dir.expanduser().absolute()
        self._logs = self._data_dir / "logs"
        self._lock = FolderLock(self._data_dir / "farm.lock")
        self._servers: dict[str, Postgres | Valkey] = {}
        self._children: dict[str, Child] = {}
        self._tried_again: set[str] = set()
        self._running: RunningFarm | None = None
        self._signals = 0
        self._stopped_by = signal.SIGTERM

    def serve(self) -> int:
        """Start, watch, stop; returns 0 after an orderly stop, 1 when a part did not start, 130 or 143 when hurried."""
        with self._signal_handlers():
            try:
                self._own_folder()
            except FluxfarmError as error:
                _complain(error.message)
                return 1
            try:
                self._start()
                self._watch()
            except _Stop:
                pass
            except (FluxfarmError, OSError) as error:
                _complain(error.message if isinstance(error, FluxfarmError) else str(error))
                return 1
            finally:
                self._stop()
        return 0 if self._signals <= 1 else 128 + self._stopped_by

    # --- starting ------------------------------------------------------------------------------------------------

    def _own_folder(self) -> None:
        """Take the data folder for this run and end what a killed run left in it."""
        try:
            # Under root PostgreSQL is another user, who must pass through but need not look around.
            self._data_dir.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
            self._lock.acquire()
        except Conflict as error:
            raise Conflict(self._who_runs()) from error
        except OSError as error:
            message = f"The data folder {self._data_dir} cannot be used ({error.strerror}): set FLUXFARM_DATA_DIR."
            raise InvalidField(message, param="FLUXFARM_DATA_DIR") from error
        for name, identity in processes.recall(self._data_dir / PIDS).items():
            if name != SUPERVISOR and not processes.end_stranger(identity, STRANGERS):
                _complain(f"{name} of an earlier run (pid {identity.pid}) does not end.")
        farmfile.remove(self._data_dir)
        self._note_pids()

    def _who_runs(self) -> str:
        running = farmfile.find(self._data_dir)
        whose = f": {running.url} (pid {running.pids.get(SUPERVISOR)})" if running else ", it is starting or stopping"
        return (
            f"A farm already runs on {self._data_dir}{whose}. Stop it first, or start a second one with another "
            "FLUXFARM_DATA_DIR, FLUXFARM_PORT and FLUXFARM_FLOWER_PORT."
        )

    def _start(self) -> None:
        if not (parts.ROOT / "migrations").is_dir():
            raise Unavailable("fluxfarm up runs from a checkout of the project, and this installation is only the CLI.")
        self._logs.mkdir(exist_ok=True, mode=0o700)
        settings = self._settings = self._with_servers(parts.complete(self._settings))
        self._command("migrations", self._plan.migrate)
        output = self._command("bootstrap", (*self._plan.bootstrap, f"--name={self._key_name()}"))
        access = Access(json.loads(output)["api_key"], parts.new_flower_password())
        for part in self._plan.parts(settings, access):
            log = self._logs / f"{part.name}.log"
            processes.rotate(log)
            child = Child(part, log=log, cwd=parts.ROOT, env=parts.environment(settings))
            self._children[part.name] = child
            child.start()
            self._note_pids()
        self._await_ready()
        self._running = RunningFarm(
            url=parts.local_url(settings),
            api_key=access.api_key,
            flower_url=parts.flower_url(settings),
            flower_user=parts.FLOWER_USER,
            flower_password=access.flower_password,
            pids=self._pids(),
        )
        farmfile.write(self._data_dir, self._running)
        where = farmfile.path_in(self._shown_dir)
        print(  # noqa: T201 (the one line that this command is for)
            f"Fluxfarm is ready: {self._running.url} (API key in {where}, Flower {self._running.flower_url})",
            flush=True,
        )

    def _with_servers(self, settings: Settings) -> Settings:
        """Start the embedded servers for what the settings leave open."""
        found: dict[str, SecretStr] = {}
        durable = self._plan.durable
        if not settings.database_url.get_secret_value():
            server = Postgres(self._data_dir / "postgres", durable=durable, log=self._logs / "postgres.log")
            self._servers["postgres"] = server
            found["database_url"] = SecretStr(server.start())
            self._heed()
        if not settings.redis_url.get_secret_value():
            broker = Valkey(self._data_dir / "valkey", durable=durable, log=self._logs / "valkey.log")
            self._servers["valkey"] = broker
            found["redis_url"] = SecretStr(broker.start())
            self._heed()
        self._note_pids()
        return settings.model_copy(update=found)

    def _key_name(self) -> str:
        """Farms that share a database each have a key of their own."""
        return KEY_NAME if "postgres" in self._servers else f"{KEY_NAME} on {socket.gethostname()}:{self._data_dir}"

    def _command(self, name: str, argv: tuple[str, ...]) -> str:
        """Run a command to its end and give its standard output.

        Raises:
            Unavailable: it failed or took too long; the message ends with what it said.
        """
        log = self._logs / f"{name}.log"
        processes.rotate(log)
        env = parts.environment(self._settings)
        process = processes.spawn(argv, log=log, cwd=parts.ROOT, env=env, capture=True)
        assert process.stdout is not None
        try:
            self._wait(lambda: process.poll() is not None, COMMAND_TIMEOUT, f"{name} did not end")
            output = process.stdout.read().decode()
        finally:
            processes.end(process, ((signal.SIGKILL, 5.0),))
            process.stdout.close()
        if process.returncode:
            raise Unavailable(f"{name} failed (exit code {process.returncode}):\n{processes.last_lines(log)}")
        return output

    def _await_ready(self) -> None:
        with httpx.Client(trust_env=False, timeout=5.0) as client:
            for child in self._children.values():
                self._wait(partial(self._is_ready, client, child), READY_TIMEOUT, _not_ready(child))
        for child in self._children.values():
            self._check_started(child)

    def _is_ready(self, client: httpx.Client, asked: Child) -> bool:
        for child in self._children.values():
            self._check_started(child)
        try:
            return asked.part.ready(client, asked.pid or 0)
        except httpx.HTTPError:
            return False

    def _check_started(self, child: Child) -> None:
        """One that was killed has a second try; one that gave up itself would only do so again."""
        if child.pid is not None:
            return
        if child.was_killed and child.part.name not in self._tried_again:
            self._tried_again.add(child.part.name)
            _complain(f"{child.part.name} {child.ending} while starting; it starts again.")
            child.start()
            self._note_pids()
        else:
            raise Unavailable(f"{child.part.name} {child.ending} while starting:\n{processes.last_lines(child.log)}")

    def _wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        until = time.monotonic() + seconds
        while not condition():
            self._heed()
            if time.monotonic() > until:
                raise Unavailable(f"{what} within {seconds:g} s.")
            time.sleep(TICK / 2)
        self._heed()

    # --- running -------------------------------------------------------------------------------------------------

    def _watch(self) -> NoReturn:
        keepers = [Keeper(name, thing) for name, thing in (*self._servers.items(), *self._children.items())]
        while True:
            self._heed()
            happened = [text for keeper in keepers if (text := keeper.tend(time.monotonic())) is not None]
            if happened and self._running is not None:
                self._note_pids()
                self._running.pids.update(self._pids())
                farmfile.write(self._data_dir, self._running)
            for text in happened:  # who reads them finds the new pids in the file
                _complain(text)
            time.sleep(TICK)

    def _pids(self) -> dict[str, int]:
        things = {**self._servers, **self._children}
        return {SUPERVISOR: os.getpid()} | {name: one.pid for name, one in things.items() if one.pid is not None}

    def _note_pids(self) -> None:
        known = {name: processes.identify(pid) for name, pid in self._pids().items()}
        identities: dict[str, Identity] = {name: one for name, one in known.items() if one is not None}
        processes.remember(self._data_dir / PIDS, identities)

    # --- stopping ------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """End the children together, then Valkey, then PostgreSQL; the farm counts as gone from the first moment."""
        farmfile.remove(self._data_dir)
        for child in self._children.values():
            if child.process is not None:
                processes.send(child.process, signal.SIGTERM)
        until = time.monotonic() + GRACE
        for child in self._children.values():
            if child.process is not None:
                processes.end(
                    child.process, ((signal.SIGCONT, max(until - time.monotonic(), 0.1)), (signal.SIGKILL, 5.0))
                )
                child.clear()
        for name in ("valkey", "postgres"):
            if name in self._servers:
                self._servers[name].stop()
        (self._data_dir / PIDS).unlink(missing_ok=True)
        self._lock.release()

    @contextmanager
    def _signal_handlers(self) -> Iterator[None]:
        heard = [number for number in STOP_SIGNALS if number != signal.SIGHUP or not _under_nohup()]
        before = {number: signal.signal(number, self._on_signal) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """The first signal stops the farm in order, the second one at once."""
        self._signals += 1
        self._stopped_by = signal.Signals(number)
        if self._signals > 1:
            for child in self._children.values():
                if child.process is not None:
                    with suppress(ProcessLookupError, PermissionError):
                        os.killpg(child.process.pid, signal.SIGKILL)
            for server in self._servers.values():
                server.hurry()

    def _heed(self) -> None:
        if self._signals:
            raise _Stop


def _under_nohup() -> bool:
    return signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def _not_ready(child: Child) -> str:
    return f"{child.part.name} is not ready (its log is {child.log}); waited"


def _complain(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"fluxfarm: {text}\n")
        sys.stderr.flush()


def run(settings: Settings, plan: Plan = parts.FARM) -> int:
    """Run a farm until Ctrl-C or SIGTERM and return the exit code.

    Call it from the main thread: signals arrive there, and on Linux the children die with the thread that made them.
    """
    return Farm(settings, plan).serve()


if __name__ == "__main__":
    sys.exit(run(Settings()))
