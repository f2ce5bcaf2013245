"""Retention on a table of a million jobs, and what those who claim and poll beside it feel; PostgreSQL and the disk."""

from __future__ import annotations

import math
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import uuid4

from pydantic import SecretStr
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from bench.dispatch import FILL, QUEUE, REQUEST, TENANTS, migrated
from fluxfarm.embedded import Postgres
from fluxfarm.settings import Settings
from storage.database import Database, connect
from storage.objects import ObjectStore, make_store
from storage.repository import followers, jobs, retention
from storage.repository.retention import Kind
from storage.repository.turns import Claimant
from workers.cleaning import Cleaner
from workers.retention import Retention

JOBS = 1_000_000
DUE = 100_000  #: of them, those that ended two days ago
WAITING: Final = 20_000  #: jobs to be claimed beside it
WITH_OBJECTS: Final = 5_000  #: jobs whose pictures lie on the disk
CHUNK: Final = 20_000  #: jobs that are made at once
SWEEPS: Final = 50  #: calls of each sweep that are measured
QUIET: Final = 10.0  #: seconds of claims and polls alone
PACE: Final = 0.02  #: seconds between two claims, and between two polls
#: what is erased, one after the other, and the setting that says when
KINDS: Final[dict[Kind, str]] = {"prompt": "prompt_days", "results": "result_days", "record": "record_days"}

OVER = text(
    """
    WITH made AS (
        INSERT INTO jobs (uuid, tenant_id, type, model, lane, queue, provider, request, prompt_object, tags, steps,
                          status, attempt, started_at, finished_at)
        SELECT gen_random_uuid(), t.id, 'IMAGE_GENERATOR', 'fluxfarm/flux-2-klein-small', n % 3, :queue, 'auto',
               CAST(:request AS jsonb), '{}', '{}', 8, 'SUCCESS', 1, now() - interval '3 days',
               now() - n * interval '1 millisecond' - CASE WHEN n % :every = 0 THEN interval '2 days' ELSE '0' END
          FROM generate_series(CAST(:first AS int), CAST(:last AS int)) AS n
          JOIN (SELECT id, row_number() OVER (ORDER BY name) AS r FROM tenants) AS t ON t.r = 1 + (n / 9) % :tenants
        RETURNING uuid, tenant_id, started_at, finished_at
    ),
    tried AS (
        INSERT INTO attempts (job_uuid, number, provider, status, seeds, effective, ignored, started_at, ended_at,
                              swept)
        SELECT uuid, 1, 'local', 'SUCCESS', '{1}', '{}', '{}', started_at, finished_at, true FROM made
    ),
    drawn AS (
        INSERT INTO images (job_uuid, n, attempt, object_key, seed, width, height, content_type, size_bytes, sha256)
        SELECT uuid, 0, 1, 't/' || tenant_id || '/' || uuid || '/1/0.webp', 1, 256, 256, 'image/webp', 10000,
               md5(uuid::text) || md5(uuid::text)
          FROM made
    )
    INSERT INTO events (job_uuid, kind, payload) SELECT uuid, 'status', '{"status": "SUCCESS"}' FROM made
    """
)
KEYS = text(
    """
    SELECT object_key FROM images JOIN jobs ON uuid = job_uuid WHERE finished_at < now() - interval '1 day' LIMIT :n
    """
)


@dataclass(slots=True)
class Felt:
    """What claims and polls took, in milliseconds."""

    claims: list[float] = field(default_factory=list)
    polls: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Round:
    """What one kind of content came to: jobs looked at, seconds, and the longest transaction in milliseconds."""

    name: str
    jobs: int
    seconds: float
    longest: float
    felt: Felt


def quantile(times: list[float], share: float) -> float:
    """The time that such a share of them did not exceed; NaN: there are none."""
    return sorted(times)[min(len(times) - 1, int(share * len(times)))] if times else math.nan


def measure() -> Iterator[Round]:
    """First nothing but claims and polls, then each kind beside them, then the objects on the disk."""
    with (
        tempfile.TemporaryDirectory(prefix="fluxfarm-bench-") as folder,
        Postgres(Path(folder) / "postgres") as postgres,
    ):
        database = migrated(postgres.url, pool_size=4)
        _fill(database)
        settings = Settings(
            database_url=database.url,
            data_dir=Path(folder) / "data",
            lease=0.001,
            redis_url=SecretStr("redis://127.0.0.1:1/0"),
        )
        store = make_store(settings)
        _store_pictures(database, store)
        with _callers(database) as felt:
            time.sleep(QUIET)
        yield Round("nothing", 0, QUIET, math.nan, felt)
        for kind in KINDS:
            yield _erased(database, settings, kind)
        yield from _swept(database, settings, store)
        store.close()
        database.close()


def _fill(database: Database) -> None:
    asked = {"queue": QUEUE, "request": REQUEST, "tenants": TENANTS}
    for first in range(1, JOBS, CHUNK):
        with database.engine.begin() as connection:
            connection.execute(text("SET LOCAL session_replication_role = replica"))  # the keys are right, and many
            where = {"first": first, "last": first + CHUNK - 1, "every": JOBS // DUE}
            connection.execute(OVER, asked | where)
    with database.engine.begin() as connection:
        connection.execute(FILL, asked | {"count": WAITING, "campaigns": 3})
    with connect(database.url) as plain:  # it may take longer than the farm would wait for an answer
        plain.execute("VACUUM ANALYZE")
        plain.execute("CHECKPOINT")


def _store_pictures(database: Database, store: ObjectStore) -> None:
    with database.transaction() as session:
        keys = list(session.scalars(KEYS, {"n": WITH_OBJECTS}))
    for key in keys:
        store.put(key, bytes(10_000), "image/webp")


@contextmanager
def _callers(database: Database) -> Iterator[Felt]:
    """Somebody who claims and somebody who polls, until the block ends."""
    felt, over = Felt(), threading.Event()
    with database.transaction() as session:
        tenant_id, uuid = session.execute(text("SELECT tenant_id, uuid FROM jobs ORDER BY seq DESC LIMIT 1")).one()
    polls: Callable[[Session], object] = lambda session: jobs.read(session, tenant_id, uuid)  # noqa: E731
    threads = [
        threading.Thread(target=_again, args=(database, work, times, over))
        for work, times in ((_claim, felt.claims), (polls, felt.polls))
    ]
    for thread in threads:
        thread.start()
    try:
        yield felt
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _again(database: Database, work: Callable[[Session], object], times: list[float], over: threading.Event) -> None:
    while not over.wait(PACE):
        started = time.perf_counter()
        with database.transaction() as session:
            work(session)
        times.append(1000 * (time.perf_counter() - started))


def _claim(session: Session) -> None:
    claimant = Claimant(worker_id=uuid4(), worker="bench", provider="local", lease=30)
    if not followers.take_together(session, QUEUE, uuid4(), claimant, lambda _: 1):
        raise RuntimeError("nothing was waiting")


def _erased(database: Database, settings: Settings, kind: Kind) -> Round:
    days = {name: int(one == kind) for one, name in KINDS.items()}
    times: list[float] = []
    erasing = Database(database.url, pool_size=1)
    _time_transactions(erasing, times)
    sweeper = Retention(settings.model_copy(update={**days, "reference_hours": 0}), erasing)
    with _callers(database) as felt:
        started = time.perf_counter()
        sweeper.erase_now()
        seconds = time.perf_counter() - started
    erasing.close()
    with database.transaction() as session:
        if retention.due(session, kind, usual=1, limit=1):
            raise RuntimeError("something is due still")
    return Round(kind, DUE, seconds, max(times), felt)


def _swept(database: Database, settings: Settings, store: ObjectStore) -> Iterator[Round]:
    """Some calls of each sweep; of what they delete, some lies on the disk."""
    times: list[float] = []
    sweeping = Database(database.url, pool_size=1)
    _time_transactions(sweeping, times)
    cleaner = Cleaner(settings, sweeping, store)
    sweeps = {
        "folders of results": cleaner.leftovers,
        "folders of records": cleaner.of_jobs,
    }
    for name, sweep in sweeps.items():
        times.clear()
        with _callers(database) as felt:
            started = time.perf_counter()
            gone = sum(sweep() for _ in range(SWEEPS))
            seconds = time.perf_counter() - started
        yield Round(name, gone, seconds, max(times), felt)
    sweeping.close()


def _time_transactions(database: Database, times: list[float]) -> None:
    began: list[float] = []
    event.listen(database.engine, "begin", lambda _: began.append(time.perf_counter()))
    event.listen(database.engine, "commit", lambda _: times.append(1000 * (time.perf_counter() - began[-1])))
