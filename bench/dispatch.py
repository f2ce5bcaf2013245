"""What a turn costs with ten thousand or a million jobs waiting: the picking code itself, on PostgreSQL, no broker."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from alembic import command
from alembic.config import Config
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.orm import Session

from fluxfarm.embedded import Postgres
from storage.database import Database
from storage.repository import dispatch, followers
from storage.repository.turns import Claimant

ROOT = Path(__file__).parent.parent
QUEUE = "local.bench"
SIZES = (1_000, 10_000, 100_000, 1_000_000)
TENANTS, CAMPAIGNS = 20, 3
TICKETS = 6  #: a window's worth
TRIES = 40

FILL = text(
    """
    INSERT INTO jobs (uuid, tenant_id, type, model, lane, queue, provider, request, prompt_object, tags, steps,
                      campaign, gpu_seconds)
    SELECT gen_random_uuid(), t.id, 'IMAGE_GENERATOR', 'fluxfarm/flux-2-klein-small', n % 3, :queue, 'auto',
           CAST(:request AS jsonb), '{}', '{}', 8, 'campaign ' || (n / 3) % :campaigns, 1
      FROM generate_series(1, :count) AS n
      JOIN (SELECT id, row_number() OVER (ORDER BY name) AS r FROM tenants) AS t ON t.r = 1 + (n / 9) % :tenants
    """
)
REQUEST = (
    '{"type": "IMAGE_GENERATOR", "model": "fluxfarm/flux-2-klein-small", "prompt": "an asset", "width": 256,'
    ' "height": 256, "seeds": [1], "steps": 8, "guidance": 3, "output_format": "webp", "output_quality": 80}'
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds, the median and the worst of some tries, with that many rows queued."""

    rows: int
    turn: float
    turn_worst: float
    dispatch: float
    dispatch_worst: float


def _milliseconds(database: Database, work: Callable[[Session], object]) -> list[float]:
    times = []
    for _ in range(TRIES):
        started = time.perf_counter()
        with database.transaction() as session:
            work(session)
        times.append(1000 * (time.perf_counter() - started))
    return times


def _take(session: Session) -> None:
    claimant = Claimant(worker_id=uuid4(), worker="bench", provider="local", lease=30)
    if not followers.take_together(session, QUEUE, uuid4(), claimant, lambda _: 1):
        raise RuntimeError("nothing was waiting")


def _measure(database: Database, rows: int) -> Cost:
    with database.engine.begin() as connection:
        connection.execute(
            FILL,
            {
                "queue": QUEUE,
                "request": REQUEST,
                "campaigns": CAMPAIGNS,
                "tenants": TENANTS,
                "count": rows - int(connection.execute(text("SELECT count(*) FROM jobs")).scalar_one()),
            },
        )
    with database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE jobs"))
    _milliseconds(database, _take)
    turn = _milliseconds(database, _take)
    picks = _milliseconds(database, lambda session: dispatch.pick(session, QUEUE, TICKETS))
    return Cost(rows, statistics.median(turn), max(turn), statistics.median(picks), max(picks))


def migrated(url: str, *, pool_size: int) -> Database:
    """A database with all tables, and with the tenants."""
    database = Database(SecretStr(url), pool_size=pool_size)
    config = Config(toml_file=ROOT / "pyproject.toml")
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.execute(
            text("INSERT INTO tenants (name) SELECT 'tenant ' || n FROM generate_series(1, :n) AS n"), {"n": TENANTS}
        )
    return database


def measure() -> Iterator[Cost]:
    """One database that grows; 180 lines of jobs (20 tenants, 3 campaigns each, 3 lanes)."""
    with (
        tempfile.TemporaryDirectory(prefix="fluxfarm-bench-") as folder,
        Postgres(Path(folder) / "postgres", durable=False) as postgres,
    ):
        database = migrated(postgres.url, pool_size=2)
        for rows in SIZES:
            yield _measure(database, rows)
        database.close()
