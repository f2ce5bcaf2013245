"""One pipeline of each shape that no test may leave changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fluxfarm.settings import Settings
from storage.database import Database
from storage.records import Tenant
from tests.workers.desk import Desk, OpenDesk
from tests.workers.receiver import Answer, receiving
from workers.pipeline import Pipeline


@pytest.fixture(scope="session")
def dev(dev_folder: Path) -> Iterator[Pipeline]:
    pipeline = Pipeline.load(dev_folder, device="cpu")
    yield pipeline
    pipeline.close()


@pytest.fixture(scope="session")
def klein(klein_folder: Path) -> Iterator[Pipeline]:
    pipeline = Pipeline.load(klein_folder, device="cpu")
    yield pipeline
    pipeline.close()


@pytest.fixture
def own(klein_folder: Path) -> Iterator[Pipeline]:
    """A pipeline that the test may spoil."""
    pipeline = Pipeline.load(klein_folder, device="cpu")
    yield pipeline
    pipeline.close()


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies a model folder, to be broken."""

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / folder.name))

    return copy


@pytest.fixture
def desk(settings: Settings, database: Database, tenant: Tenant) -> OpenDesk:
    """Opens a webhook endpoint whose receiver gives these answers."""

    @contextmanager
    def open_desk(*answers: Answer) -> Iterator[Desk]:
        with receiving(*answers) as receiver:
            made = Desk(settings, database, tenant, receiver)
            yield made
            for sender in made.senders:
                sender.queue.close()

    return open_desk
