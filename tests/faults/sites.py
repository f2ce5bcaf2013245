"""A farm whose every part a test may kill, freeze or starve: servers and processes of its own, each held by the hand.

``fluxfarm up`` would start again what dies; here the test says when. Leases are short, so that recovery is quick.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any

import httpx
import psycopg
from pydantic import SecretStr
from redis import Redis

from fluxfarm import processes
from fluxfarm.embedded import Postgres, Valkey, free_port
from fluxfarm.scopes import Scope
from storage.database import Database
from storage.repository import tenants
from tests.conftest import ROOT, migrate
from tests.e2e.farms import FINAL, clean_environment, wait_for
from tests.making import MODEL

LEASE = 2.0  #: seconds
BACK = 30.0  #: seconds in which the farm must work again after a repair
QUICK = {
    "FLUXFARM_LEASE": str(LEASE),
    "FLUXFARM_LEASE_RENEWAL": "0.5",
    "FLUXFARM_SWEEP_INTERVAL": "0.5",
    "FLUXFARM_STEP_TIMEOUT": "2",
    "FLUXFARM_MODELS": MODEL,
    "FLUXFARM_LOG_LEVEL": "WARNING",
    "OMP_NUM_THREADS": "1",
}


class Program:
    """One process; it dies with the tests, however they end."""

    def __init__(self, name: str, argv: Sequence[str], env: dict[str, str], folder: Path) -> None:
        self.name = name
        self.env = env
        self.log = folder / f"{name}.log"
        self._argv = [sys.executable, *argv]
        self._folder = folder
        self.process: Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, **environment: str) -> None:
        """Start it unless it runs; ``environment`` is for this run only."""
        if not self.alive:
            self.process = processes.spawn(self._argv, log=self.log, cwd=ROOT, env={**self.env, **environment})

    def send(self, number: signal.Signals) -> None:
        if self.alive:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait(10)

    def wait(self, seconds: float) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def end(self) -> None:
        self.send(signal.SIGCONT)
        if self.process is not None:
            processes.end(self.process, ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)))


@dataclass
class Site:
    """The parts by name, and the ways in."""

    folder: Path
    postgres: Postgres
    valkey: Valkey
    key: str = ""
    url: str = ""
    programs: dict[str, Program] = field(default_factory=dict)

    @property
    def worker(self) -> Program:
        return self.programs["worker"]

    @property
    def scheduler(self) -> Program:
        return self.programs["scheduler"]

    @property
    def api(self) -> Program:
        return self.programs["api"]

    # --- as a caller ---------------------------------------------------------------------------------------------

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def post(self, prompt: str = "a lighthouse", *, steps: int = 1, size: str = "64x64", n: int = 1) -> httpx.Response:
        prompt_object = {"prompt": prompt, "size": size, "num_inference_steps": steps, "n": n, "output_format": "png"}
        body = {"type": "IMAGE_GENERATOR", "model": MODEL, "promptObject": prompt_object}
        return httpx.post(f"{self.url}/v1/jobs", json=body, headers=self.headers, timeout=40, trust_env=False)

    def accept(self, prompt: str = "a lighthouse", **fields: Any) -> str:
        reply = self.post(prompt, **fields)
        assert reply.status_code == 202, reply.text
        uuid: str = reply.json()["aiRecord"]["uuid"]
        return uuid

    def get(self, path: str) -> httpx.Response:
        """What a good client does: tries again for a while when told to."""
        end = time.monotonic() + BACK
        while True:
            reply = httpx.get(f"{self.url}{path}", headers=self.headers, timeout=40, trust_env=False)
            if reply.status_code != 503 or time.monotonic() > end:
                return reply
            time.sleep(0.1)

    def record(self, uuid: str) -> dict[str, Any]:
        record: dict[str, Any] = self.get(f"/v1/jobs/{uuid}").json()["aiRecord"]
        return record

    def running(self, uuid: str) -> dict[str, Any]:
        """Waits until the job runs and has made a step."""
        found: dict[str, Any] = {}

        def runs() -> bool:
            found.update(self.record(uuid))
            assert found["status"] in {"QUEUED", "RUNNING"}, found
            return found["status"] == "RUNNING" and bool(found["progress"]["step"])

        wait_for(runs, BACK)
        return found

    def finished(self, uuid: str, seconds: float = BACK) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while (record := self.record(uuid))["status"] not in FINAL:
            assert time.monotonic() < end, f"{record}\n{self.said()}"
            time.sleep(0.05)
        return record

    def succeeds(self, uuid: str, *, attempts: int | None = None, seconds: float = BACK) -> dict[str, Any]:
        """The job ends in SUCCESS, once: one final event, one finished attempt, its own pictures and no others."""
        record = self.finished(uuid, seconds)
        assert record["status"] == "SUCCESS", f"{record}\n{self.said()}"
        assert sum(state in FINAL for state in self.told(uuid)) == 1, self.told(uuid)
        states = [attempt["status"] for attempt in record["attempts"]]
        assert states.count("SUCCESS") == 1
        assert states[-1] == "SUCCESS"
        assert attempts is None or len(states) == attempts, record["attempts"]
        number = record["attempts"][-1]["number"]
        keys = record["aiRecordDetail"]["resultObject"]
        assert keys
        assert all(f"/{uuid}/{number}/" in key for key in keys)
        return record

    def all_succeed(self, uuids: list[str], seconds: float = 2 * BACK) -> None:
        """The same for many at once, asked of the database."""
        states = "SELECT status, count(*) FROM jobs WHERE uuid = ANY (%s) GROUP BY status"
        wait_for(lambda: {status for status, _ in self.sql(states, uuids)} <= FINAL, seconds)
        assert self.sql(states, uuids) == [("SUCCESS", len(uuids))]
        wrong = """
            SELECT uuid FROM jobs WHERE uuid = ANY (%s) AND (
                (SELECT count(*) FROM events WHERE job_uuid = uuid AND kind = 'status'
                    AND payload->>'status' IN ('SUCCESS', 'FAILED', 'CANCELED')) <> 1
                OR (SELECT string_agg(number::text, ',') FROM attempts WHERE job_uuid = uuid AND status = 'SUCCESS')
                    IS DISTINCT FROM attempt::text
                OR (SELECT string_agg(DISTINCT images.attempt::text, ',') FROM images WHERE job_uuid = uuid)
                    IS DISTINCT FROM attempt::text)"""
        assert self.sql(wrong, uuids) == []

    def renders(self) -> bool:
        """Whether a job goes through now; for ``wait_for``."""
        try:
            reply = self.post("again")
            return reply.status_code == 202 and self.finished(reply.json()["aiRecord"]["uuid"])["status"] == "SUCCESS"
        except httpx.HTTPError:
            return False

    # --- as an operator ------------------------------------------------------------------------------------------

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def told(self, uuid: str) -> list[str]:
        """The states that the job's events name, in order."""
        rows = self.sql("SELECT payload->>'status' FROM events WHERE job_uuid=%s AND kind='status' ORDER BY id", uuid)
        return [row[0] for row in rows]

    def redis(self) -> Redis:
        return Redis.from_url(self.valkey.url, socket_timeout=5, decode_responses=True)

    def objects(self, uuid: str) -> list[Path]:
        """Files of the job in the local store."""
        return [path for path in (self.folder / "data" / "objects").rglob("*.png") if uuid in str(path)]

    def said(self) -> str:
        return "\n".join(f"--- {name}\n{processes.last_lines(one.log, 30)}" for name, one in self.programs.items())

    def is_ready(self, program: Program) -> bool:
        """Whether this very worker process is registered and has its model."""
        with suppress(psycopg.OperationalError):
            return self.sql("SELECT 1 FROM workers WHERE pid = %s AND state = 'ready'", program.pid) != []
        return False

    def restart_postgres(self) -> None:
        """The immediate stop of a power cut: nothing is flushed, every client is cut; then it comes back."""
        self.stop_postgres()
        self.postgres.start()

    def stop_postgres(self) -> None:
        assert self.postgres.process is not None
        os.kill(self.postgres.process.pid, signal.SIGQUIT)
        self.postgres.process.wait(20)

    def kill_valkey(self) -> None:
        assert self.valkey.process is not None
        self.valkey.process.kill()
        self.valkey.process.wait(10)

    def mend(self) -> None:
        """Everything runs; what a test left behind is started again."""
        self.postgres.start()
        self.valkey.start()
        for program in self.programs.values():
            program.send(signal.SIGCONT)
            program.start()
        with httpx.Client(trust_env=False, timeout=5) as client:
            wait_for(lambda: self._answers(client), 30)
        workers = [one for name, one in self.programs.items() if name == "remote" or name.startswith("worker")]
        wait_for(lambda: all(self.is_ready(worker) for worker in workers), 30)
        wait_for(self.renders, 60)

    def _answers(self, client: httpx.Client) -> bool:
        try:
            return bool(client.get(f"{self.url}/readyz").json()["status"] == "ready")
        except (httpx.HTTPError, ValueError):
            return False


@contextmanager
def servers(folder: Path) -> Iterator[Site]:
    """PostgreSQL with the tables and a key, and Valkey; no process of the farm yet."""
    with Postgres(folder / "postgres") as postgres, Valkey(folder / "valkey") as valkey:
        database = Database(SecretStr(postgres.url), pool_size=2)
        migrate(database)
        with database.transaction() as session:
            tenant = tenants.ensure_tenant(session, "acme")
            _, key = tenants.create_key(session, tenant.id, "tests", Scope)
        database.close()
        yield Site(folder, postgres, valkey, key)


@contextmanager
def running(
    folder: Path,
    *,
    worker: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    environment: dict[str, str] | None = None,
    site: Site | None = None,
) -> Iterator[Site]:
    """A whole farm; ``worker`` is environment of the worker alone, ``options`` go to the launcher by program."""
    if site is None:
        with (
            servers(folder) as fresh,
            running(folder, worker=worker, options=options, environment=environment, site=fresh) as farm,
        ):
            yield farm
        return
    port = free_port()
    site.url = f"http://127.0.0.1:{port}"
    marks = folder / "marks"
    marks.mkdir()
    env = {
        **clean_environment(),
        **QUICK,
        "DATABASE_URL": site.postgres.url,
        "REDIS_URL": site.valkey.url,
        "FLUXFARM_DATA_DIR": str(folder / "data"),
        "FLUXFARM_PORT": str(port),
        "FLUXFARM_RATE_LIMIT": "1000000",  # the chaos bench calls more often than any caller should
        **(environment or {}),
    }
    launch = ("-m", "tests.faults.launch")
    uvicorn = ("-m", "uvicorn", "api.main:create_app", "--factory", f"--port={port}", "--no-access-log")
    site.programs["api"] = Program("api", uvicorn, env, folder)
    for name in options or {"worker": "", "scheduler": ""}:
        extra = (options or {}).get(name, "").split()
        if name.startswith("worker"):
            argv = (*launch, "local", f"--painter={marks}", *extra)
            site.programs[name] = Program(name, argv, env | (worker or {}), folder)
        elif name == "remote":
            site.programs[name] = Program(name, (*launch, "remote", f"--painter={marks}", *extra), env, folder)
        else:
            site.programs[name] = Program(name, (*launch, "scheduler", *extra), env, folder)
    try:
        site.mend()
        yield site
    finally:
        for program in site.programs.values():
            program.send(signal.SIGCONT)
            program.send(signal.SIGTERM)
        for program in site.programs.values():
            with suppress(TimeoutExpired):
                program.wait(3)
            program.end()
