"""Lists out of a real streaming standby."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
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
from tests.api.campaigns_made import make
from tests.api.samples import Hand, body
from tests.making import MODEL, make_job


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
        # With a flush: on an idle server that does not wait for its disk, the last records would stay in memory.
        place = connection.scalar(text("SELECT pg_logical_emit_message(false, 'tests', '', true)::text"))
    follower = Database(SecretStr(standby.url), pool_size=1)
    replayed = text("SELECT pg_last_wal_replay_lsn() >= CAST(:place AS pg_lsn)")
    try:
        with follower.engine.connect() as connection:
            wait_until(lambda: bool(connection.scalar(replayed, {"place": place})))
    finally:
        follower.close()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "the standby does not follow, or is asked against the limit"
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


def make_one_of_each(api: TestClient, name: str) -> str:
    """A job, a campaign and a batch; gives the job's id."""
    line: dict[str, Any] = {"custom_id": "1", "method": "POST", "url": "/v1/images/generations"}
    line |= {"body": {"model": MODEL, "prompt": "a fox", "size": "64x64"}}
    file = {"file": (f"{name}.jsonl", json.dumps(line))}
    sent = api.post("/v1/files", files=file, data={"purpose": "batch"}).json()["id"]
    asked = {"input_file_id": sent, "endpoint": line["url"], "completion_window": "24h", "metadata": {"name": name}}
    assert api.post("/v1/batches", json=asked).status_code == 200
    make(api, name=name)
    uuid: str = api.post("/v1/jobs", json=body(tags=["mine"])).json()["aiRecord"]["uuid"]
    return uuid


def seen(api: TestClient) -> dict[str, list[str]]:
    """What each list shows."""

    def data(path: str) -> list[dict[str, Any]]:
        reply = api.get(path)
        assert reply.status_code == 200, reply.text
        found: list[dict[str, Any]] = reply.json()["data"]
        return found

    return {
        "jobs": [one["uuid"] for one in data("/v1/jobs?tag=mine")],
        "campaigns": [one["name"] for one in data("/v1/campaigns")],
        "batches": [one["metadata"]["name"] for one in data("/v1/batches")],
        "files": [one["filename"].removesuffix(".jsonl") for one in data("/v1/files")],
    }


def looked_at(browser: TestClient, second: str) -> list[bool]:
    """Whether each page of the dashboard has what was made last."""
    pages = {"/jobs?tag=mine": second, "/campaigns": ">second<", "/gallery/pictures": second}
    return [text in browser.get(f"/dashboard{path}").text for path, text in pages.items()]


def test_lists_come_from_the_standby_and_from_the_primary_without_it(
    settings: Settings, database: Database, api_key: str, standby: Postgres, hand: Hand
) -> None:
    replicated = settings.model_copy(update={"replica_url": SecretStr(standby.url), "replica_lag": 1e6})
    app = create_app(replicated)
    with (
        TestClient(app, headers={"Authorization": f"Bearer {api_key}"}) as api,
        TestClient(app, headers={"Sec-Fetch-Site": "same-origin"}, follow_redirects=False) as browser,
    ):
        first = make_one_of_each(api, "first")
        catch_up(database, standby)
        seen(api)  # from now on the standby is known to follow
        replay(standby, "pause")
        second = make_one_of_each(api, "second")
        hand.finish(hand.claim(second))
        old = {"jobs": [first], "campaigns": ["first"], "batches": ["first"], "files": ["first"]}
        new = {"jobs": [second, first]} | {key: ["second", "first"] for key in ("campaigns", "batches", "files")}
        assert seen(api) == old, "the standby stands still, and it is asked"
        assert api.get(f"/v1/jobs/{second}").status_code == 200, "one job is looked up at the primary"
        newest = api.get("/v1/batches/" + batch_of(database, "second")).json()["id"]
        after = api.get(f"/v1/batches?after={newest}").json()["data"]
        assert [one["metadata"]["name"] for one in after] == ["first"], "a place that the standby has not got"
        assert browser.post("/dashboard/login", data={"key": api_key}).status_code == 303
        assert looked_at(browser, second) == [True, True, True], "who has just done something sees it"
        browser.cookies.delete("fluxfarm_written")
        assert looked_at(browser, second) == [False, False, False]
        standby.stop()
        assert seen(api) == new
        assert seen(api) == new
        assert looked_at(browser, second) == [True, True, True]


def batch_of(database: Database, name: str) -> str:
    with database.engine.connect() as connection:
        query = text("SELECT id FROM batches WHERE notes ->> 'name' = :name")
        return str(connection.scalar(query, {"name": name}))
