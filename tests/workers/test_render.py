"""The way of a job through a worker, on the real pipeline, database, broker and store; only Celery is left out."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import text

from fluxfarm.airecord import Problem
from fluxfarm.catalog import KLEIN_SMALL
from fluxfarm.errors import DatabaseUnavailable, StoreUnavailable
from fluxfarm.jobs import JobState, JobType
from fluxfarm.settings import Settings
from fluxfarm.sources import ModelSource
from storage.database import Database
from storage.objects import object_key
from storage.records import Job, Tenant
from storage.repository import attempts, jobs, workers
from storage.watermark import FOUND
from tests.making import QUEUE, make_job, make_request, read_job, state
from tests.workers.drawing import handle, klein_worker, local_provider, stored
from tests.workers.lora_files import make_lora
from tests.workers.pipeline_drawings import hooked
from workers.pipeline import Pipeline
from workers.render import NOTHING
from workers.worker import RenderWorker

STOP = Problem(code="canceled", message="The caller stopped it.", retryable=False)
LOST = Problem(code="worker_lost", message="Its worker died.", retryable=True)


@pytest.fixture
def worker(local: Settings, start: Callable[[Settings], RenderWorker], klein: Pipeline) -> RenderWorker:
    """A worker that has the session's pipeline loaded, as if it had rendered before."""
    return klein_worker(start(local), klein)


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def render_beside(worker: RenderWorker, job: Job) -> tuple[threading.Thread, list[str]]:
    words: list[str] = []
    thread = threading.Thread(target=lambda: words.append(handle(worker, job)))
    thread.start()
    return thread, words


def pixels(worker: RenderWorker, key: str) -> bytes:
    """Each file is signed anew, so the pictures are compared, not the files."""
    with Image.open(io.BytesIO(worker.store.get(key))) as picture:
        return picture.tobytes()


def test_a_job_becomes_images_of_the_exact_size(worker: RenderWorker, database: Database, tenant: Tenant) -> None:
    job = make_job(database, tenant, request=make_request(width=101, height=67, seeds=(1, 2), output_format="png"))
    assert handle(worker, job) == "SUCCESS"
    found = read_job(database, job)
    assert (found.status, found.step, found.steps) == (JobState.SUCCESS, 4, 4)
    assert [image.seed for image in found.images] == [1, 2]
    assert sorted(stored(worker)) == sorted(image.object_key for image in found.images)
    for image in found.images:
        with Image.open(io.BytesIO(worker.store.get(image.object_key))) as picture:
            assert (picture.size, picture.format) == ((101, 67), "PNG")
    (attempt,) = found.attempts
    assert set(attempt.timings) == {"queue", "load", "encode_prompt", "render", "encode", "upload"}
    assert attempt.model_revision is not None
    assert attempt.effective["width"] == 101
    assert attempt.device is not None
    assert attempt.device["attention"] == "native"
    assert attempt.device["peakMemoryBytes"] > 2**20


def test_reading_the_prompt_is_timed_and_paid(
    worker: RenderWorker, klein: Pipeline, database: Database, tenant: Tenant
) -> None:
    local_provider(worker)._settings = worker.settings.model_copy(update={"gpu_second_price": Decimal(1)})
    job = make_job(database, tenant, request=make_request(prompt="a prompt that nobody has read before"))
    with hooked(klein._pipe.text_encoder.model, lambda *_: time.sleep(0.3)):
        assert handle(worker, job) == "SUCCESS"
    (attempt,) = read_job(database, job).attempts
    read, drew = attempt.timings["encode_prompt"], attempt.timings["render"]
    assert read >= 0.3
    assert float(attempt.cost or 0) == pytest.approx(read + drew, abs=2e-4)


def test_a_farm_with_a_watermark_marks_what_it_draws(
    local: Settings, start: Callable[[Settings], RenderWorker], klein: Pipeline, database: Database, tenant: Tenant
) -> None:
    worker = klein_worker(start(local.model_copy(update={"watermark": True})), klein)
    assert worker.watermark is not None
    job = make_job(database, tenant, request=make_request(width=128, height=128, output_format="webp"))
    assert handle(worker, job) == "SUCCESS"
    (image,) = read_job(database, job).images
    with Image.open(io.BytesIO(worker.store.get(image.object_key))) as picture:
        assert worker.watermark.score(picture) >= FOUND


def test_the_same_seed_is_the_same_picture(worker: RenderWorker, database: Database, tenant: Tenant) -> None:
    digests = []
    for seeds in ((5,), (5,), (4, 5), (6,), (0,), (2**63 - 1,)):
        job = make_job(database, tenant, request=make_request(seeds=seeds, output_format="png"))
        handle(worker, job)
        digests.append(pixels(worker, read_job(database, job).images[-1].object_key))
    assert digests[0] == digests[1] == digests[2]
    assert len(set(digests[2:])) == 4


def test_loras_and_acceleration_are_used_and_recorded(
    worker: RenderWorker, klein: Pipeline, database: Database, tenant: Tenant, tmp_path: Path
) -> None:
    make_lora(tmp_path / "red.safetensors", klein._pipe.transformer)
    local_provider(worker)._settings = worker.settings.model_copy(update={"loras": tmp_path})

    def drawn(**changes: Any) -> tuple[bytes, dict[str, Any]]:
        job = make_job(database, tenant, request=make_request(steps=8, output_format="png", **changes))
        assert handle(worker, job) == "SUCCESS"
        found = read_job(database, job)
        return pixels(worker, found.images[0].object_key), found.attempts[0].effective

    plain, _ = drawn()
    red, with_lora = drawn(loras=({"name": "red", "scale": 0.5},))
    fast, with_acceleration = drawn(acceleration="high")
    assert len({plain, red, fast}) == 3
    assert with_lora["loras"] == [{"name": "red", "scale": 0.5}]
    assert (with_acceleration["acceleration"], with_acceleration["loras"]) == ("high", [])
    assert drawn()[0] == plain
    job = make_job(database, tenant, request=make_request(loras=({"name": "gone"},)))
    assert handle(worker, job) == "lora_unusable"
    failed = read_job(database, job)
    assert (failed.status, failed.attempt) == (JobState.FAILED, 1)


def test_references_change_the_picture(worker: RenderWorker, database: Database, tenant: Tenant) -> None:
    digests = []
    for colours in ((), ("red",), ("blue",), ("red", "blue")):
        job_request = make_request(output_format="png", type=JobType.IMAGE_EDITOR)
        keys = []
        for n, colour in enumerate(colours):
            body = io.BytesIO()
            Image.new("RGB", (96, 64), colour).save(body, "PNG")
            keys.append(object_key(tenant.id, tenant.id, 0, n, "png"))
            worker.store.put(keys[-1], body.getvalue(), "image/png")
        job = make_job(database, tenant, request=job_request.model_copy(update={"references": tuple(keys)}))
        assert handle(worker, job) == "SUCCESS"
        digests.append(pixels(worker, read_job(database, job).images[0].object_key))
    assert len(set(digests)) == 4


def test_a_doubled_or_late_ticket_does_nothing(worker: RenderWorker, database: Database, tenant: Tenant) -> None:
    job = make_job(database, tenant)
    assert handle(worker, job) == "SUCCESS"
    before = stored(worker)
    assert handle(worker, job) == NOTHING
    assert stored(worker) == before
    assert read_job(database, job).attempt == 1


def test_a_cancel_stops_within_two_steps_and_the_next_job_starts(
    worker: RenderWorker, database: Database, tenant: Tenant
) -> None:
    slow = make_job(database, tenant, request=make_request(width=256, height=256, steps=50, seeds=(1, 2, 3)))
    thread, words = render_beside(worker, slow)
    wait_for(lambda: read_job(database, slow).step > 0)
    steps: list[int] = []
    with database.transaction() as session:
        jobs.cancel(session, tenant.id, slow.uuid, STOP)
    canceled_at = time.monotonic()
    (held,) = worker.leases._snapshot()
    steps.append((held.progress or (0, 0))[0])
    thread.join(timeout=10)
    steps.append((held.progress or (0, 0))[0])
    assert words == ["canceled"]
    assert time.monotonic() - canceled_at < 5
    assert steps[1] - steps[0] <= 4, "two steps, and what passed between the two readings"
    assert state(database, slow) is JobState.CANCELED
    assert stored(worker) == []
    following = make_job(database, tenant)
    assert handle(worker, following) == "SUCCESS"
    assert read_job(database, slow).attempts[0].swept


def test_a_lost_lease_stops_the_render_and_changes_nothing(
    worker: RenderWorker, database: Database, tenant: Tenant
) -> None:
    job = make_job(database, tenant, request=make_request(width=256, height=256, steps=50, seeds=(1, 2, 3)))
    thread, words = render_beside(worker, job)
    wait_for(lambda: read_job(database, job).step > 0)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET lease_expires_at = now() - interval '1 minute'"))
    with database.transaction() as session:
        attempts.expire(session, max_attempts=3, poison=LOST, lost=LOST)
    thread.join(timeout=10)
    assert words[0] in {"canceled", "lease_lost"}
    found = read_job(database, job)
    assert (found.status, found.attempt) == (JobState.QUEUED, 1)
    assert stored(worker) == []


def test_a_lease_is_renewed_for_as_long_as_the_render_takes(
    local: Settings, start: Callable[[Settings], RenderWorker], database: Database, tenant: Tenant, klein: Pipeline
) -> None:
    worker = start(local.model_copy(update={"lease": 1.5, "lease_renewal": 0.2}))
    local_provider(worker).residents.pipelines[KLEIN_SMALL.slug] = klein
    job = make_job(database, tenant, request=make_request(width=192, height=192, steps=50, seeds=(1, 2)))
    thread, words = render_beside(worker, job)
    while thread.is_alive():
        with database.transaction() as session:
            assert attempts.expire(session, max_attempts=3, poison=LOST, lost=LOST) == []
        thread.join(timeout=0.1)
    assert words == ["SUCCESS"]


@pytest.mark.parametrize("broken", ["missing", "no-index", "wrong-class", "cut-weights"])
def test_a_broken_model_fails_its_jobs_at_once_and_the_worker_lives_on(
    broken: str,
    local: Settings,
    start: Callable[[Settings], RenderWorker],
    database: Database,
    tenant: Tenant,
    klein_folder: Path,
    copied: Callable[[Path], Path],
) -> None:
    folder = copied(klein_folder)
    if broken == "missing":
        folder = folder / "nowhere"
    elif broken == "no-index":
        (folder / "model_index.json").unlink()
    elif broken == "wrong-class":
        (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    else:
        weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    worker = start(local.model_copy(update={"models": (ModelSource(KLEIN_SMALL.slug, folder=folder),)}))
    worker.provider.warm_up()
    job = make_job(database, tenant)
    assert handle(worker, job) == "model_unavailable"
    found = read_job(database, job)
    assert (found.status, found.attempt) == (JobState.FAILED, 1)
    assert found.problem is not None
    assert (found.problem.code, found.problem.retryable) == ("model_unavailable", False)
    assert str(folder) in found.problem.message
    local_provider(worker)._sources[KLEIN_SMALL.slug] = ModelSource(KLEIN_SMALL.slug, folder=klein_folder)
    again = make_job(database, tenant)
    assert handle(worker, again) == "SUCCESS", "it mends itself once the folder is whole"


def test_a_prompt_that_would_be_cut_fails_with_its_reason(
    worker: RenderWorker, database: Database, tenant: Tenant
) -> None:
    job = make_job(database, tenant, request=make_request(prompt="word " * 790))
    assert handle(worker, job) == "prompt_too_long"
    assert state(database, job) is JobState.FAILED


def test_a_reference_that_is_gone_is_named_as_the_reason(
    worker: RenderWorker, database: Database, tenant: Tenant
) -> None:
    gone = object_key(tenant.id, tenant.id, 0, 0, "png")
    job = make_job(database, tenant, request=make_request(references=(gone,)))
    assert handle(worker, job) == "reference_gone"
    assert state(database, job) is JobState.FAILED


class BrokenStore:
    """A store that fails as often as told, then works; everything else is the real one."""

    def __init__(self, real: Any, failures: int) -> None:
        self._real, self.failures = real, failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def put(self, key: str, body: bytes, content_type: str) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise StoreUnavailable("The object store does not answer.")
        self._real.put(key, body, content_type)


def test_a_store_that_is_down_postpones_the_job(worker: RenderWorker, database: Database, tenant: Tenant) -> None:
    worker.store = BrokenStore(worker.store, failures=1)
    job = make_job(database, tenant, request=make_request(seeds=(1, 2)))
    assert handle(worker, job) == "store_unavailable"
    found = read_job(database, job)
    assert (found.status, found.problem and found.problem.retryable) == (JobState.QUEUED, True)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET run_after = NULL"))
    assert handle(worker, job) == "SUCCESS"
    assert len(stored(worker)) == 2


def test_a_database_that_goes_away_at_the_end_is_waited_for(
    worker: RenderWorker, database: Database, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = attempts.finish, []

    def finish(*args: Any) -> bool:
        calls.append(1)
        done = real(*args)
        if len(calls) == 1:
            raise DatabaseUnavailable("The database does not answer.")
        return done

    monkeypatch.setattr(attempts, "finish", finish)
    job = make_job(database, tenant)
    assert handle(worker, job) == "SUCCESS"
    assert len(calls) == 2
    assert state(database, job) is JobState.SUCCESS


def test_a_finished_job_makes_room_for_the_next_ticket(
    worker: RenderWorker, database: Database, tenant: Tenant
) -> None:
    first, second = make_job(database, tenant), make_job(database, tenant)
    handle(worker, first)
    assert read_job(database, second).dispatched_at is not None


def test_a_worker_shows_itself_and_signs_off(
    local: Settings, start: Callable[[Settings], RenderWorker], database: Database
) -> None:
    worker = start(local)
    worker._warm_up()
    with database.transaction() as session:
        (seen,) = workers.alive(session)
        assert (seen.state, seen.models, seen.slots, seen.device) == ("ready", [KLEIN_SMALL.slug], 2, "cpu")
        assert workers.slots(session, QUEUE) == 2
        assert workers.slots(session, "local.other") == 0
    worker.stop()
    with database.transaction() as session:
        assert workers.alive(session) == []
