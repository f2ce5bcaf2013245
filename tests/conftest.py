"""Real parts for every test: one PostgreSQL and one Valkey for each pytest process, empty tables for each test."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import structlog
from alembic import command
from alembic.config import Config
from pydantic import SecretStr
from redis import Redis
from sqlalchemy import text

from fluxfarm.catalog import KLEIN_SMALL, SMALL
from fluxfarm.embedded import Postgres, Valkey
from fluxfarm.logs import configure_logging
from fluxfarm.scopes import Scope
from fluxfarm.settings import Settings
from storage.database import Database
from storage.records import ApiKey, Base, Tenant
from storage.repository import tenants
from workers.pipeline_small import ensure_small

ROOT = Path(__file__).parent.parent
MANY = 2_000  #: rows
signal.signal(signal.SIGINT, signal.default_int_handler)  # `nohup make test &` ignores it, and so would what it starts
os.environ.setdefault("OMP_NUM_THREADS", "1")  # one pytest process a core: more threads of torch would only wait


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Not below pytest's own folder: another pytest that starts closes that to all but its user, in mid-initdb."""
    with (
        TemporaryDirectory(prefix="fluxfarm-tests-") as folder,
        Postgres(Path(folder) / "postgres", durable=False) as postgres,
    ):
        yield postgres.url


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Valkey(tmp_path_factory.mktemp("valkey"), durable=False) as valkey:
        yield valkey.url


def migrate(database: Database, revision: str = "head") -> None:
    config = Config(toml_file=ROOT / "pyproject.toml")
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


@pytest.fixture(scope="session")
def migrated(postgres_url: str) -> Iterator[Database]:
    database = Database(SecretStr(postgres_url), pool_size=20)
    migrate(database)
    yield database
    database.close()


@pytest.fixture
def database(migrated: Database) -> Iterator[Database]:
    yield migrated
    empty(migrated)


def empty(database: Database) -> None:
    """Twenty times as fast as TRUNCATE, which makes new files for every table, as long as the rows are few."""
    tables = [table.name for table in Base.metadata.sorted_tables]
    with_rows = " UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT FROM {name})" for name in tables)
    with database.engine.begin() as connection:
        found = list(connection.scalars(text(with_rows)))
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # no keys are checked in between
        gone = sum(connection.execute(text(f"DELETE FROM {name}")).rowcount for name in found)
        if gone > MANY:  # dead rows slow down the tests that come after
            connection.execute(text(f"TRUNCATE {', '.join(tables)}"))


@pytest.fixture
def settings(database: Database, valkey_url: str, tmp_path: Path) -> Iterator[Settings]:
    yield Settings(
        database_url=database.url,
        redis_url=SecretStr(valkey_url),
        data_dir=tmp_path / "data",
        public_url="http://127.0.0.1:8000",
        log_level="WARNING",
    )
    with Redis.from_url(valkey_url) as redis:
        redis.flushall()


@pytest.fixture
def tenant(database: Database) -> Tenant:
    with database.transaction() as session:
        return tenants.ensure_tenant(session, "acme")


@pytest.fixture
def key_and_secret(database: Database, tenant: Tenant) -> tuple[ApiKey, str]:
    with database.transaction() as session:
        return tenants.create_key(session, tenant.id, "tests", Scope)


@pytest.fixture
def api_key(key_and_secret: tuple[ApiKey, str]) -> str:
    return key_and_secret[1]


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch  # noqa: PLC0415  # only the tests of the pipeline pay for it

    torch.set_num_threads(1)  # with more, the processes of a parallel run wait for each other
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def dev_folder(models_dir: Path) -> Path:
    return ensure_small(SMALL.slug, models_dir)


@pytest.fixture(scope="session")
def klein_folder(models_dir: Path) -> Path:
    return ensure_small(KLEIN_SMALL.slug, models_dir)


@pytest.fixture
def logged(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What a process with the most talkative level says."""
    root = logging.getLogger()
    handlers, level, configuration = root.handlers[:], root.level, structlog.get_config()
    configure_logging(settings.model_copy(update={"log_level": "DEBUG"}))
    yield lambda: "".join(capsys.readouterr())
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**configuration)
