"""A worker that draws in this process, on the session's pipeline."""

from __future__ import annotations

from fluxfarm.catalog import KLEIN_SMALL
from storage.records import Job
from workers.pipeline import Pipeline
from workers.providers.local import LocalProvider
from workers.worker import RenderWorker


def local_provider(worker: RenderWorker) -> LocalProvider:
    assert isinstance(worker.provider, LocalProvider)
    return worker.provider


def klein_worker(worker: RenderWorker, klein: Pipeline) -> RenderWorker:
    """The worker, with the pipeline loaded, as if it had rendered before."""
    local_provider(worker).residents.pipelines[KLEIN_SMALL.slug] = klein
    return worker


def handle(worker: RenderWorker, job: Job) -> str:
    return worker.handle(job.queue, job.uuid)


def stored(worker: RenderWorker) -> list[str]:
    return list(worker.store.keys("t/"))
