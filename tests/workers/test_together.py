"""Jobs that a worker renders together: claimed as one, drawn in one call, and each with an end of its own."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sqlalchemy import text

from fluxfarm.airecord import Problem
from fluxfarm.catalog import DEV, KLEIN_4B, KLEIN_SMALL
from fluxfarm.errors import FluxfarmError, StoreUnavailable
from fluxfarm.jobs import JobState
from fluxfarm.settings import Settings
from fluxfarm.sizes import Size
from fluxfarm.sources import ModelSource
from storage.database import Database
from storage.records import Job, Tenant
from storage.repository import attempts, jobs
from storage.repository.turns import Claim
from tests.making import QUEUE, make_job, make_request, read_job
from tests.workers.pipeline_drawings import counted, hooked
from tests.workers.test_pipeline_batch import apart, fails
from workers import delivery
from workers.leases import Held
from workers.pipeline import Pipeline
from workers.providers.local import LocalProvider
from workers.render import NOTHING
from workers.worker import RenderWorker

STOP = Problem(code="canceled", message="The caller stopped it.", retryable=False)
LOST = Problem(code="worker_lost", message="Its worker died.", retryable=True)


@pytest.fixture
def worker(settings: Settings, klein_folder: Path, klein: Pipeline) -> Iterator[RenderWorker]:
    source = ModelSource(KLEIN_SMALL.slug, folder=klein_folder)
    worker = RenderWorker(
        settings.model_copy(update={"models": (source,), "store_patience": 0.0, "batch_size": 4}), (QUEUE,), slots=2
    )
    worker.start()
    local(worker).residents.pipelines[KLEIN_SMALL.slug] = klein
    yield worker
    local(worker).residents.pipelines.pop(KLEIN_SMALL.slug, None)
    worker.stop()


def local(worker: RenderWorker) -> LocalProvider:
    assert isinstance(worker.provider, LocalProvider)
    return worker.provider


def make(database: Database, tenant: Tenant, count: int = 4, **changes: Any) -> list[Job]:
    asked = {"steps": 4, "output_format": "png"} | changes
    return [
        make_job(database, tenant, request=make_request(prompt=f"number {n}", seeds=(n,), **asked))
        for n in range(count)
    ]


def handle(worker: RenderWorker, job: Job) -> str:
    return worker.handle(job.queue, job.uuid)


def states(database: Database, made: list[Job]) -> list[JobState]:
    return [read_job(database, job).status for job in made]


def pixels(worker: RenderWorker, database: Database, job: Job) -> bytes:
    (image,) = read_job(database, job).images
    with Image.open(io.BytesIO(worker.store.get(image.object_key))) as picture:
        return picture.tobytes()


def test_one_call_draws_them_all_and_every_job_has_its_own_result(
    worker: RenderWorker, database: Database, tenant: Tenant, klein: Pipeline
) -> None:
    made = make(database, tenant)
    with counted(klein._pipe.transformer) as passes:
        assert handle(worker, made[0]) == ", ".join(["SUCCESS"] * 4)
    assert len(passes) == 8  # two passes for each of four steps
    assert handle(worker, made[1]) == NOTHING, "a ticket whose job was taken along"
    found = [read_job(database, job) for job in made]
    assert [(job.status, job.attempt, job.step, job.steps) for job in found] == [(JobState.SUCCESS, 1, 4, 4)] * 4
    assert [job.attempts[0].batch for job in found] == [
        {"position": n, "size": 4, "leader": str(made[0].uuid)} for n in range(4)
    ]
    shares = [job.attempts[0].timings["render"] for job in found]
    assert len(set(shares)) == 1, "each has its share of the device's time"
    alone = make(database, tenant)
    local(worker)._settings = worker.settings.model_copy(update={"batch_size": 1})
    for job in alone:
        assert handle(worker, job) == "SUCCESS"
    assert read_job(database, alone[0]).attempts[0].batch is None
    for one, other in zip(made, alone, strict=True):
        assert apart(pixels(worker, database, one), pixels(worker, database, other)) <= 1


def beside(worker: RenderWorker, job: Job) -> tuple[threading.Thread, list[str]]:
    words: list[str] = []
    thread = threading.Thread(target=lambda: words.append(handle(worker, job)))
    thread.start()
    return thread, words


def reaches(pipeline: Pipeline, step: int, then: Any) -> Any:
    """Runs ``then`` once, in the middle of the call, after so many passes of the transformer."""
    seen: list[int] = []

    def hook(*_: object) -> None:
        seen.append(1)
        if len(seen) == step:
            then()

    return hooked(pipeline._pipe.transformer, hook)


def test_a_cancel_drops_one_and_the_others_go_on(
    worker: RenderWorker, database: Database, tenant: Tenant, klein: Pipeline
) -> None:
    made = make(database, tenant, steps=30)

    def cancel() -> None:
        with database.transaction() as session:
            jobs.cancel(session, tenant.id, made[1].uuid, STOP)
        (held,) = [held for held in worker.leases._snapshot() if held.claim.uuid == made[1].uuid]
        assert held.woken.wait(10), "the worker hears of it"

    with reaches(klein, 6, cancel):
        words = handle(worker, made[0])
    assert words == "SUCCESS, canceled, SUCCESS, SUCCESS"
    assert states(database, made) == [JobState.SUCCESS, JobState.CANCELED, JobState.SUCCESS, JobState.SUCCESS]
    assert not [key for key in worker.store.keys("t/") if str(made[1].uuid) in key]


def test_a_lost_lease_drops_one_and_the_others_go_on(
    worker: RenderWorker, database: Database, tenant: Tenant, klein: Pipeline
) -> None:
    made = make(database, tenant, steps=30)

    def expire() -> None:
        with database.engine.begin() as connection:
            statement = "UPDATE jobs SET lease_expires_at = now() - interval '1 minute' WHERE uuid = :u"
            connection.execute(text(statement), {"u": made[2].uuid})
        with database.transaction() as session:
            attempts.expire(session, max_attempts=3, poison=LOST, lost=LOST)
        (held,) = [held for held in worker.leases._snapshot() if held.claim.uuid == made[2].uuid]
        assert held.woken.wait(10), "the worker hears of it"

    with reaches(klein, 6, expire):
        handle(worker, made[0])
    assert states(database, made) == [JobState.SUCCESS, JobState.SUCCESS, JobState.QUEUED, JobState.SUCCESS]
    assert read_job(database, made[2]).attempt == 1
    assert handle(worker, made[2]) == "SUCCESS"
    assert [attempt.batch and attempt.batch["size"] for attempt in read_job(database, made[2]).attempts] == [4, None]


def test_one_upload_that_fails_fails_one_job(worker: RenderWorker, database: Database, tenant: Tenant) -> None:
    made = make(database, tenant)
    put = worker.store.put

    def refuse(key: str, body: bytes, content_type: str) -> None:
        if str(made[3].uuid) in key:
            raise StoreUnavailable("The object store does not answer.")
        put(key, body, content_type)

    worker.store.put = refuse  # type: ignore[method-assign]
    assert handle(worker, made[0]) == "SUCCESS, SUCCESS, SUCCESS, store_unavailable"
    assert states(database, made) == [JobState.SUCCESS] * 3 + [JobState.QUEUED]


def test_an_unforeseen_fault_of_one_prompts_check_is_nothing_to_the_others(
    worker: RenderWorker, database: Database, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(database, tenant)

    def check(claim: Claim) -> None:
        if claim.uuid == made[1].uuid:
            raise ValueError("nobody thought of this")

    monkeypatch.setattr(worker.safety, "check_prompt", check)
    assert handle(worker, made[0]) == "SUCCESS, render_failed, SUCCESS, SUCCESS"


@pytest.mark.parametrize("even_its_failure", [False, True])
def test_an_unforeseen_fault_at_the_end_of_one_is_nothing_to_the_others(
    worker: RenderWorker, database: Database, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, *, even_its_failure: bool
) -> None:
    local(worker)._settings = worker.settings.model_copy(update={"batch_size": 8})
    made = make(database, tenant, count=9)
    finish, give_up = delivery._finish, delivery._give_up

    def break_one(_worker: RenderWorker, held: Held, outcome: attempts.Outcome) -> bool:
        if held.claim.uuid == made[0].uuid:
            raise ValueError("nobody thought of this")
        time.sleep(0.1)
        return finish(_worker, held, outcome)

    def break_too(_worker: RenderWorker, held: Held, error: FluxfarmError) -> str:
        if even_its_failure:
            raise ValueError("nor of this")
        return give_up(_worker, held, error)

    monkeypatch.setattr(delivery, "_finish", break_one)
    monkeypatch.setattr(delivery, "_give_up", break_too)
    word = "internal_error" if even_its_failure else "render_failed"
    assert handle(worker, made[0]) == ", ".join([word] + ["SUCCESS"] * 7)
    left = JobState.RUNNING if even_its_failure else JobState.QUEUED  # for another try
    assert states(database, made) == [left] + [JobState.SUCCESS] * 7 + [JobState.QUEUED]
    assert worker.leases._snapshot() == [], "what could not be told of runs out with its lease"
    assert read_job(database, made[8]).dispatched_at is not None, "the next ticket is sent"


NO_ROOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def test_a_batch_without_room_is_drawn_one_by_one_and_the_record_says_so(
    worker: RenderWorker, database: Database, tenant: Tenant, klein: Pipeline
) -> None:
    made = make(database, tenant)
    with hooked(klein._pipe.vae.decoder, fails(NO_ROOM, lambda rows: rows > 1)):
        assert handle(worker, made[0]) == ", ".join(["SUCCESS"] * 4)
    assert {
        job.attempts[0].batch and job.attempts[0].batch["size"] for job in (read_job(database, one) for one in made)
    } == {None}


def test_without_any_room_the_jobs_fail_with_a_clear_code_and_the_worker_lives(
    worker: RenderWorker, database: Database, tenant: Tenant, klein: Pipeline
) -> None:
    made = make(database, tenant, count=2)
    with hooked(klein._pipe.vae.decoder, fails(NO_ROOM, lambda _: True)):
        assert handle(worker, made[0]) == "out_of_memory, out_of_memory"
        for _ in range(2):
            with database.engine.begin() as connection:
                connection.execute(text("UPDATE jobs SET run_after = NULL WHERE status = 'QUEUED'"))
            assert [handle(worker, job) for job in made] == ["out_of_memory"] * 2, "alone, and there is still no room"
    for job in made:
        found = read_job(database, job)
        assert (found.status, found.problem and found.problem.code) == (JobState.FAILED, "out_of_memory")
    (after,) = make(database, tenant, count=1)
    assert handle(worker, after) == "SUCCESS"


def test_another_model_makes_room_before_a_job_is_given_up(
    worker: RenderWorker, database: Database, tenant: Tenant, klein: Pipeline, klein_folder: Path
) -> None:
    other = Pipeline.load(klein_folder, device="cpu")
    local(worker).residents.pipelines["other"] = other
    (job,) = make(database, tenant, count=1)
    full = fails(NO_ROOM, lambda _: "other" in local(worker).residents.pipelines)
    with hooked(klein._pipe.vae.decoder, full):
        assert handle(worker, job) == "SUCCESS"
    assert list(local(worker).residents.pipelines) == [KLEIN_SMALL.slug]


@pytest.mark.parametrize(
    ("model", "side", "pays"),
    [
        *((DEV, 512, 4), (DEV, 768, 1), (KLEIN_4B, 512, 8), (KLEIN_4B, 1024, 4), (KLEIN_4B, 1040, 1)),
        *((KLEIN_SMALL, 128, 8), (KLEIN_SMALL, 256, 2), (KLEIN_SMALL, 272, 1)),
    ],
)
def test_how_many_pay(model: Any, side: int, pays: int, settings: Settings) -> None:
    assert model.batch(Size(side, side)) == pays
    request = make_request(model=model.slug, width=side, height=side)
    for wished, expected in ((0, pays), (1, 1), (6, 6)):
        provider = LocalProvider(settings.model_copy(update={"batch_size": wished}), ())
        assert provider.most(request) == expected
        assert provider.most(request.model_copy(update={"references": ("t/r.png",)})) == 1
