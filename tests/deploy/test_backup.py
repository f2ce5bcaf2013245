"""The commands of the guide to backups, run as they stand there: a restored farm goes on where the dump was made."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.main import create_app
from fluxfarm.embedded import find_postgres
from fluxfarm.settings import Settings
from storage.database import Database
from storage.dispatcher import Dispatcher
from storage.objects import make_store
from storage.queue import Queue
from tests.api.samples import Hand, body
from tests.conftest import ROOT
from tests.making import own_database
from workers.cleaning import Cleaner
from workers.sweeping import Sweeper

GUIDE = (ROOT / "docs" / "guides" / "backup.md").read_text(encoding="utf-8")
BACK_UP, RESTORE = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture
def restored(postgres_url: str) -> Iterator[Database]:
    with own_database(postgres_url, pool_size=5) as database:
        yield database


def run(script: str, **environment: str) -> None:
    path = f"{find_postgres()}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-euc", script],
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_restored_farm_goes_on(
    settings: Settings, database: Database, api_key: str, restored: Database, tmp_path: Path
) -> None:
    backup, folder = tmp_path / "backup", tmp_path / "restored"
    backup.mkdir()
    headers = {"Authorization": f"Bearer {api_key}"}
    with TestClient(create_app(settings), headers=headers, follow_redirects=False) as api:
        hand = Hand(database, make_store(settings), lease=0.001)
        done, running, waiting = (api.post("/v1/jobs", json=body()).json()["aiRecord"]["uuid"] for _ in range(3))
        hand.finish(hand.claim(done))
        hand.claim(running)
        hook = api.post("/v1/webhooks", json={"url": "https://example.com/hook"}).json()
        before = api.get(f"/v1/jobs/{done}").json()["aiRecord"]
        picture = api.get(before["temporaryUrl"]).content
        run(
            BACK_UP,
            BACKUP=str(backup),
            DATABASE_URL=database.url.get_secret_value(),
            FLUXFARM_DATA_DIR=str(settings.data_dir),
        )
        later = api.post("/v1/jobs", json=body()).json()["aiRecord"]["uuid"]
    run(RESTORE, BACKUP=str(backup), RESTORED_URL=restored.url.get_secret_value(), RESTORED_DIR=str(folder))
    new = settings.model_copy(update={"database_url": restored.url, "data_dir": folder})
    Sweeper(new, restored, Dispatcher(restored, Queue(new), window=2)).sweep()
    store = make_store(new)
    Cleaner(new, restored, store).clean()
    with TestClient(create_app(new), headers=headers, follow_redirects=False) as api:
        after = api.get(f"/v1/jobs/{done}").json()["aiRecord"]
        link = after["temporaryUrl"]
        drop = ("temporaryUrl", "temporaryUrls")
        assert {name: value for name, value in after.items() if name not in drop} == {
            name: value for name, value in before.items() if name not in drop
        }
        assert api.get(link).content == picture
        assert api.get(before["temporaryUrl"]).content == picture, "a link that was given out before goes on, too"
        secret = api.get(f"/v1/webhooks/{hook['id']}/secret").json()
        assert secret["secret"] == hook["secret"]
        states = {uuid: api.get(f"/v1/jobs/{uuid}").json()["aiRecord"]["status"] for uuid in (running, waiting)}
        assert states == {running: "QUEUED", waiting: "QUEUED"}
        assert api.get(f"/v1/jobs/{later}").status_code == 404
        again = Hand(restored, store)
        for uuid in (running, waiting):
            again.finish(again.claim(uuid))
        assert [one["status"] for one in api.get("/v1/jobs").json()["data"]] == ["SUCCESS"] * 3
        assert len(api.get(f"/v1/jobs/{running}").json()["aiRecord"]["attempts"]) == 2
        assert api.post("/v1/jobs", json=body()).status_code == 202
