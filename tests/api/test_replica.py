"""Lists out of a real streaming standby."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from starlette.testclient import TestClient

from api.main import create_app
from fluxfarm.embedded import Postgres, find_postgres
from fluxfarm.settings import Settings
from storage.database import Database
from storage.records import Tenant
from storage.replica import Replica
from tests.api.samples import body
from tests.making import make_job


@pytest.fixture
def standby(postgres_url: str, database: Database) -> Iterator[Postgres]:
    """It follows the tests' own server."""
    sockets = parse_qs(urlsplit(postgres_url).query)["host"][0]
    with database.engine.connect() as connection:
        place = connection.scalar(text("SHOW data_directory"))
    owner = Path(str(place)).stat()
    with TemporaryDirectory(prefix="fluxfarm-standby-") as folder:
        data = Path(folder) / "postgres" / "data"
        argv = ["-h", sockets, "-U", "postgres", "-D", str(data), "--write-recovery-conf", "--checkpoint=fast"]
        subprocess.run([find_postgres() / "pg_basebackup", *argv], check=True, capture_output=True, timeout=60)
        for path in (data, *data.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        with Postgres(Path(folder) / "postgres", durable=False) as server:
            yield server


def catch_up(database: Database, standby: Postgres) -> None:
    """Wait until the standby has all that is committed now."""
    with database.engine.connect() as connection:
        place = connection.scalar(text("SELECT pg_current_wal_insert_lsn()::text"))
    follower = Database(SecretStr(standby.url), pool_size=1)
    replayed = text("SELECT pg_last_wal_replay_lsn() >= CAST(:place AS pg_lsn)")
    end = time.monotonic() + 20
    with follower.engine.connect() as connection:
        while not connection.scalar(replayed, {"place": place}):
            assert time.monotonic() < end, "the standby does not follow"
            time.sleep(0.05)
    follower.close()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "the standby is asked, or is not asked, against the limit"
        time.sleep(0.05)


def replay(standby: Postgres, order: str) -> None:
    """``pause`` or ``resume`` what the standby does."""
    follower = Database(SecretStr(standby.url), pool_size=1)
    with follower.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(f"SELECT pg_wal_replay_{order}()"))
    follower.close()


def test_a_standby_that_is_too_far_behind_is_not_asked(
    settings: Settings, database: Database, standby: Postgres, tenant: Tenant
) -> None:
    url = SecretStr(standby.url)
    near = Replica(settings.model_copy(update={"replica_url": url, "replica_lag": 0.2}), database)
    far = Replica(settings.model_copy(update={"replica_url": url, "replica_lag": 1e9}), database)

    def is_asked(replica: Replica) -> bool:
        return bool(replica.read(lambda session: session.scalar(text("SELECT pg_is_in_recovery()"))))

    wait_until(lambda: is_asked(near) and is_asked(far))
    replay(standby, "pause")
    make_job(database, tenant)
    wait_until(lambda: not is_asked(near))
    assert is_asked(far)
    time.sleep(0.3)
    assert not is_asked(near), "it stays so"
    replay(standby, "resume")
    wait_until(lambda: is_asked(near))
    near.close()
    far.close()


def test_lists_come_from_the_standby_and_from_the_primary_without_it(
    settings: Settings, database: Database, api_key: str, standby: Postgres
) -> None:
    replicated = settings.model_copy(update={"replica_url": SecretStr(standby.url)})
    headers = {"Authorization": f"Bearer {api_key}"}
    with TestClient(create_app(replicated), headers=headers) as api:

        def listed() -> list[str]:
            reply = api.get("/v1/jobs")
            assert reply.status_code == 200, reply.text
            return [one["uuid"] for one in reply.json()["data"]]

        first = api.post("/v1/jobs", json=body()).json()["aiRecord"]["uuid"]
        catch_up(database, standby)
        assert listed() == [first]
        replay(standby, "pause")
        second = api.post("/v1/jobs", json=body()).json()["aiRecord"]["uuid"]
        assert listed() == [first], "the standby stands still, and it is asked"
        assert api.get(f"/v1/jobs/{second}").status_code == 200, "one job is looked up at the primary"
        standby.stop()
        assert listed() == [second, first]
        assert listed() == [second, first]
