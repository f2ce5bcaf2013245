"""An object store that is down, silent or slow: the render is kept and put when there is room again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fluxfarm.settings import Settings
from storage.objects_s3 import S3Store
from tests.faults.sites import LEASE, Site, running
from tests.s3.faulty import Call, Reply, Verdict, proxy
from tests.s3.servers import ACCESS_KEY, SECRET_KEY
from tests.s3.servers import running as s3_server

pytestmark = pytest.mark.xdist_group("faults-store")


@dataclass
class Way:
    """How the store behaves at the moment; the first ``lost`` uploads get no answer."""

    down: bool = False
    delay: float = 0.0  #: seconds
    lost: int = 0
    uploads: int = 0
    end: threading.Event = field(default_factory=threading.Event)

    def __call__(self, call: Call) -> Verdict:
        if self.down:
            return Reply(503, "SlowDown")
        if call.method == "PUT":
            self.uploads += 1
            time.sleep(self.delay)
            if self.lost > 0:
                self.lost -= 1
                self.end.wait()
                return "lose the reply"
        return "pass"


@contextmanager
def spoiled_store(folder: Path) -> Iterator[tuple[dict[str, str], Way]]:
    """The settings of a bucket at a real S3 server, and the way to it."""
    way = Way()
    (folder / "s3").mkdir()
    with s3_server("ministack", folder / "s3") as server, proxy(server.port, way) as door:
        environment = {
            "S3_BUCKET": "fluxfarm-faults",
            "S3_ENDPOINT_URL": door.url,
            "S3_ACCESS_KEY_ID": ACCESS_KEY,
            "S3_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        store = S3Store(Settings.model_validate(environment))
        store.ensure_bucket()
        store.close()
        try:
            yield environment, way
        finally:
            way.end.set()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Way]]:
    folder = tmp_path_factory.mktemp("bucket")
    with spoiled_store(folder) as (environment, way), running(folder, environment=environment) as site:
        yield site, way


def test_jobs_wait_for_a_store_that_is_down(bucket: tuple[Site, Way]) -> None:
    """503 for longer than a lease and than the client's own tries: no attempt is lost, no picture drawn again."""
    site, way = bucket
    way.down = True
    try:
        jobs = [site.accept("the store is down") for _ in range(3)]
        time.sleep(LEASE + 4)
        assert {site.record(uuid)["status"] for uuid in jobs} <= {"RUNNING", "QUEUED"}
    finally:
        way.down = False
    for uuid in jobs:
        site.succeeds(uuid, attempts=1)


def test_an_upload_that_falls_into_a_black_hole_is_made_again(bucket: tuple[Site, Way]) -> None:
    site, way = bucket
    way.lost = 1
    site.succeeds(site.accept("black hole"), attempts=1)
    assert way.lost == 0


def test_uploads_that_take_longer_than_a_lease_keep_it(bucket: tuple[Site, Way]) -> None:
    site, way = bucket
    way.delay = LEASE + 1
    try:
        jobs = [site.accept("slow store") for _ in range(3)]
        for uuid in jobs:
            site.succeeds(uuid, attempts=1)
    finally:
        way.delay = 0.0
