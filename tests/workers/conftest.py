"""One pipeline of each shape that no test may leave changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fluxfarm.catalog import KLEIN_SMALL
from fluxfarm.settings import Settings
from fluxfarm.sources import ModelSource
from storage.database import Database
from storage.records import Tenant
from tests.making import QUEUE
from tests.workers.desk import Desk, OpenDesk
from tests.workers.drawing import local_provider
from tests.workers.receiver import Answer, receiving
from workers.pipeline import Pipeline
from workers.worker import RenderWorker


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


@pytest.fixture
def local(settings: Settings, klein_folder: Path) -> Settings:
    source = ModelSource(KLEIN_SMALL.slug, folder=klein_folder)
    return settings.model_copy(update={"models": (source,), "store_patience": 0.0, "batch_size": 1})


@pytest.fixture
def start() -> Iterator[Callable[[Settings], RenderWorker]]:
    started: list[RenderWorker] = []

    def start(settings: Settings) -> RenderWorker:
        worker = RenderWorker(settings, (QUEUE,), slots=2)
        worker.start()
        started.append(worker)
        return worker

    yield start
    for worker in started:
        local_provider(worker).residents.pipelines.pop(KLEIN_SMALL.slug, None)
        worker.stop()
