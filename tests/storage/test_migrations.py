from __future__ import annotations

from collections.abc import Iterator

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from storage.database import Database
from storage.records import Base
from tests.conftest import ROOT, migrate
from tests.making import own_database


@pytest.fixture
def empty(postgres_url: str) -> Iterator[Database]:
    with own_database(postgres_url, pool_size=2) as database:
        yield database


def _config(database: Database) -> Config:
    config = Config(toml_file=ROOT / "pyproject.toml")
    config.attributes["connection"] = database.engine.connect()
    return config


def test_up_and_down_leaves_nothing_and_up_again_works(empty: Database) -> None:
    migrate(empty)
    tables = set(inspect(empty.engine).get_table_names())
    assert {table.name for table in Base.metadata.sorted_tables} <= tables
    config = _config(empty)
    with config.attributes["connection"] as connection:
        command.downgrade(config, "base")
        connection.commit()
    assert set(inspect(empty.engine).get_table_names()) == {"alembic_version"}
    migrate(empty)
    assert set(inspect(empty.engine).get_table_names()) == tables


def test_each_step_can_be_taken_and_taken_back(empty: Database) -> None:
    script = ScriptDirectory.from_config(Config(toml_file=ROOT / "pyproject.toml"))
    revisions = [revision.revision for revision in reversed(list(script.walk_revisions()))]
    for revision in revisions:
        migrate(empty, revision)
        config = _config(empty)
        with config.attributes["connection"] as connection:
            command.downgrade(config, "-1")
            command.upgrade(config, revision)
            connection.commit()
    assert len(script.get_heads()) == 1


def test_the_tables_are_what_the_records_say(empty: Database) -> None:
    migrate(empty)
    with empty.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": Base.metadata}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_every_migration_says_how_to_go_back() -> None:
    for path in (ROOT / "migrations" / "versions").glob("*.py"):
        body = path.read_text().partition("def downgrade() -> None:")[2].strip()
        assert body, f"{path.name} has no downgrade"
        assert body != "pass", f"{path.name} has an empty downgrade"


def test_partial_indexes_serve_the_hot_queries(empty: Database) -> None:
    migrate(empty)
    names = {index["name"] for index in inspect(empty.engine).get_indexes("jobs")}
    assert {"ix_jobs_ready", "ix_jobs_dispatched", "ix_jobs_lease", "ix_jobs_postponed", "ix_jobs_deadline"} <= names
