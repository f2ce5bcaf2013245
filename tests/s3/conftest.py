"""One of each S3 wire server for the whole run, and a fresh bucket for each test."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest

from fluxfarm.settings import Settings
from storage.objects_s3 import PATIENT, Patience, S3Store
from tests.s3.servers import ACCESS_KEY, SECRET_KEY, Server, running

Make = Callable[..., S3Store]
ONE_TRY = Patience(connect=3, read=10, attempts=1)


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Has If-None-Match and Range; takes any secret of a known key id in a header, and an empty signature in a link."""
    with running("ministack", tmp_path_factory.mktemp("ministack")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Checks every signature; ignores If-None-Match."""
    with running("rclone", tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture
def bucket() -> str:
    return f"test-{secrets.token_hex(8)}"


@pytest.fixture
def make(bucket: str) -> Iterator[Make]:
    """Makes stores for this test's bucket and closes them; further settings go by their names in the environment."""
    opened: list[S3Store] = []

    def make_one(endpoint: str, *, patience: Patience = ONE_TRY, **changes: str) -> S3Store:
        values: dict[str, str] = {
            "S3_BUCKET": bucket,
            "S3_ENDPOINT_URL": endpoint,
            "S3_PUBLIC_ENDPOINT_URL": "",
            "S3_REGION": "us-east-1",
            "S3_ACCESS_KEY_ID": ACCESS_KEY,
            "S3_SECRET_ACCESS_KEY": SECRET_KEY,
            "S3_CHECKSUMS": "auto",
            "S3_ADDRESSING_STYLE": "auto",
            **changes,
        }
        store = S3Store(Settings.model_validate(values), patience)
        opened.append(store)
        return store

    yield make_one
    for store in opened:
        store.close()


@pytest.fixture(params=["ministack", "rclone"])
def server(request: pytest.FixtureRequest) -> Server:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Server)
    return found


@pytest.fixture
def store(server: Server, make: Make) -> S3Store:
    """A store on its own bucket, on either server."""
    made = make(server.url, patience=PATIENT)  # rclone answers 500 now and then when the machine is busy
    made.ensure_bucket()
    return made
