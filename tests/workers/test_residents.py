"""Which models stay on the device, and what a load tells of itself."""

from __future__ import annotations

import faulthandler
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis
from sqlalchemy import select, text

from fluxfarm.catalog import KLEIN_SMALL, SMALL
from fluxfarm.errors import ModelUnavailable, OutOfMemory
from fluxfarm.jobs import JobState
from fluxfarm.settings import Settings
from fluxfarm.sizes import Size
from fluxfarm.sources import ModelSource
from storage.database import Database
from storage.records import Tenant, Worker
from storage.repository import dispatch, followers, workers
from tests.making import QUEUE, claimant, make_job, make_request, read_job
from tests.workers.pipeline_drawings import hooked
from workers.pipeline import Pipeline
from workers.providers.local import LocalProvider
from workers.render import NOTHING
from workers.residents import MIB, Residents
from workers.worker import PASSED_ON, RenderWorker


@pytest.fixture
def load(klein_folder: Path) -> Callable[[str], Pipeline]:
    return lambda _slug: Pipeline.load(klein_folder, device="cpu")


def limited(settings: Settings, pipeline: Pipeline, models: float) -> Settings:
    return settings.model_copy(
        update={"resident_models": 8, "model_memory": int(models * pipeline.memory / MIB), "device": "cpu"}
    )


def test_the_least_used_one_makes_room_by_what_was_measured(
    settings: Settings, load: Callable[[str], Pipeline], klein: Pipeline
) -> None:
    at_load: list[list[str]] = []

    def watched(slug: str) -> Pipeline:
        at_load.append([*residents.pipelines])
        return load(slug)

    residents = Residents(limited(settings, klein, 2.5), watched)
    for slug in ("a", "b", "a", "c"):
        residents.take(slug)
    assert at_load == [[], ["a"], ["b", "a"]], "nobody knew yet how large c is"
    assert [*residents.pipelines] == ["a", "c"], "then the least used one went"
    again = residents.take("a")
    residents.take("b")
    assert at_load[-1] == ["a"], "now it makes room before it loads"
    assert [*residents.pipelines] == ["a", "b"]
    assert residents.take("a") is again
    residents.close()


def test_what_torch_keeps_without_use_is_no_reason_to_send_a_model_away(
    settings: Settings, load: Callable[[str], Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    gib, held = 2**30, [0]
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        mem_get_info=lambda _device: (gib, 80 * gib),
        utilization=lambda _device: 0,
        memory_reserved=lambda _device: 78 * gib,
        memory_allocated=lambda _device: held[0],
    )
    residents = Residents(settings.model_copy(update={"resident_models": 2, "memory_reserve": 2048}), load)
    residents.take("a")
    residents._device = "cuda"
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    for taken, kept in ((20 * gib, ["a"]), (76 * gib, [])):
        held[0] = taken
        residents._make_room(10 * gib)
        assert [*residents.pipelines] == kept


def test_a_load_without_room_sends_the_others_away_and_fails_only_alone(
    settings: Settings, load: Callable[[str], Pipeline]
) -> None:
    def full(slug: str) -> Pipeline:
        if slug == "b" and residents.pipelines:
            raise OutOfMemory("The device has no room for the model.")
        if slug == "huge":
            raise OutOfMemory("The device has no room for the model.")
        return load(slug)

    residents = Residents(settings, full)
    residents.take("a")
    residents.take("b")
    assert [*residents.pipelines] == ["b"]
    with pytest.raises(OutOfMemory):
        residents.take("huge")
    assert residents.loading is None
    residents.close()


def test_a_load_tells_when_it_should_be_done_by_the_last_one(
    settings: Settings, load: Callable[[str], Pipeline]
) -> None:
    told: list[Any] = []

    def begin() -> Residents:
        residents = Residents(settings, load)
        residents.changed = lambda: told.append((residents.loading, datetime.now(UTC)))
        return residents

    for broken in (False, False, True):
        if broken:
            (settings.data_dir / "loads.json").write_text("{")
        residents = begin()
        residents.take("a")
        residents.close()
    (first, begun), (after, done), (second, again), _, (unknown, _), _ = told
    assert (first.slug, first.ready_at, after) == ("a", None, None)
    foretold, took = (second.ready_at - again).total_seconds(), (done - begun).total_seconds()
    assert abs(foretold - took) < 0.5, "the next load is foretold to take as long as the last"
    assert unknown.ready_at is None


@pytest.fixture
def open_worker(settings: Settings, klein_folder: Path) -> Iterator[Callable[..., RenderWorker]]:
    opened: list[RenderWorker] = []

    def start(**changes: Any) -> RenderWorker:
        source = ModelSource(KLEIN_SMALL.slug, folder=klein_folder)
        worker = RenderWorker(settings.model_copy(update={"models": (source,)} | changes), (QUEUE,), slots=2)
        worker.start()
        opened.append(worker)
        return worker

    yield start
    for worker in opened:
        worker.stop()


def provider(worker: RenderWorker) -> LocalProvider:
    assert isinstance(worker.provider, LocalProvider)
    return worker.provider


def test_a_load_is_seen_from_outside_and_so_is_what_is_warm(
    open_worker: Callable[..., RenderWorker], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = open_worker()
    seen: list[tuple[str, list[str], str | None]] = []
    real = Pipeline.load

    def row() -> Worker:
        with database.transaction() as session:
            return session.scalars(select(Worker).where(Worker.id == worker.id)).one()

    def load(*place: Any, **how: Any) -> Pipeline:
        seen.append((row().state, row().warm, row().loading))
        return real(*place, **how)

    monkeypatch.setattr(Pipeline, "load", load)
    worker._warm_up()
    assert seen == [("loading", [], KLEIN_SMALL.slug)]
    assert (row().state, row().warm, row().loading) == ("ready", [KLEIN_SMALL.slug], None)


def test_a_load_that_fails_and_a_model_that_goes_are_seen_at_once(
    open_worker: Callable[..., RenderWorker], database: Database, klein: Pipeline, own: Pipeline
) -> None:
    worker = open_worker()
    provider(worker)._sources[KLEIN_SMALL.slug] = ModelSource(KLEIN_SMALL.slug, folder=Path("nowhere"))
    residents = provider(worker).residents

    def row() -> tuple[str, list[str], str | None]:
        with database.transaction() as session:
            found = session.scalars(select(Worker).where(Worker.id == worker.id)).one()
            return found.state, found.warm, found.loading

    before = row()
    with pytest.raises(ModelUnavailable):
        residents.take(KLEIN_SMALL.slug)
    assert row() == before == ("starting", [], None)
    residents.pipelines |= {"kept": klein, "other": own}
    assert residents.keep_only("kept")
    assert row()[1] == ["kept"]
    residents.pipelines.clear()


def test_nothing_is_claimed_until_every_size_was_drawn_under_the_watchdog(
    open_worker: Callable[..., RenderWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    armed: list[float] = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda seconds, **_: armed.append(seconds))
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", armed.clear)
    worker = open_worker(warm_sizes=(Size(64, 64), Size(100, 64), Size(4000, 64)), batch_size=2)
    residents = provider(worker).residents
    pipeline = residents.take(KLEIN_SMALL.slug)
    seen: list[tuple[int, ...]] = []

    def look(_module: Any, _positional: Any, result: Any) -> None:
        assert provider(worker)._turns.locked()
        assert worker._condition().state == "starting"
        assert armed
        seen.append(tuple(result.shape))

    with hooked(pipeline._pipe.vae.decoder, look):
        worker._warm_up()
    assert seen == [(1, 3, 64, 64), (2, 3, 64, 64), (1, 3, 64, 112), (2, 3, 64, 112)]
    assert worker._condition().state == "ready"
    assert not armed


def test_sizes_to_warm_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUXFARM_WARM_SIZES", "1024x1024, 832x1216")
    assert Settings().warm_sizes == (Size(1024, 1024), Size(832, 1216))


def test_a_ticket_goes_to_the_worker_that_has_the_model_warm(
    open_worker: Callable[..., RenderWorker], database: Database, tenant: Tenant, settings: Settings
) -> None:
    cold, warm = open_worker(), open_worker()
    warm._warm_up()
    job = make_job(database, tenant)
    with database.transaction() as session:
        assert dispatch.pick(session, QUEUE, 1) == [job.uuid]
    until = time.monotonic() + 10
    while cold.handle(QUEUE, job.uuid) != PASSED_ON:  # until the warm one is seen to be there
        assert time.monotonic() < until
    assert provider(cold).residents.pipelines == {}
    with Redis.from_url(settings.redis_url.get_secret_value()) as redis:
        assert redis.llen(QUEUE) == 1, "the ticket is out again"
    assert read_job(database, job).dispatched_at is not None
    cold.queue._down_until = time.monotonic() + 60
    assert cold.handle(QUEUE, job.uuid) == PASSED_ON
    cold.queue._down_until = 0.0
    assert read_job(database, job).dispatched_at is None, "without a broker it waits for a new one"
    with database.transaction() as session:
        assert dispatch.pick(session, QUEUE, 1) == [job.uuid]
    assert warm.handle(QUEUE, job.uuid) == "SUCCESS"
    assert cold.handle(QUEUE, job.uuid) == NOTHING, "nobody waits"
    leader, follower, waiting = (make_job(database, tenant, request=make_request(seeds=(n,))) for n in range(3))
    with database.transaction() as session:
        assert dispatch.pick(session, QUEUE, 2) == [leader.uuid, follower.uuid]
        taken = followers.take_together(session, QUEUE, leader.uuid, claimant(), lambda _: 2)
        assert [claim.uuid for claim in taken] == [leader.uuid, follower.uuid]
    assert cold.handle(QUEUE, follower.uuid) == PASSED_ON, "its job is taken, and stands for the one that waits"
    assert provider(cold).residents.pipelines == {}
    assert warm.handle(QUEUE, follower.uuid) == "SUCCESS"
    assert read_job(database, waiting).status is JobState.SUCCESS
    late = make_job(database, tenant)
    with database.engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET dispatched_at = now() - interval '1 hour' WHERE uuid = :u"), {"u": late.uuid}
        )
    assert cold.handle(QUEUE, late.uuid) == "SUCCESS", "what waited for longer than a load is worth one"


@pytest.mark.parametrize("why", ["dead", "another queue", "cold"])
def test_a_ticket_is_not_left_to_one_who_cannot_have_it(
    open_worker: Callable[..., RenderWorker], database: Database, tenant: Tenant, why: str
) -> None:
    worker = open_worker()
    make_job(database, tenant)
    with database.transaction() as session:
        dispatch.pick(session, QUEUE, 1)
        other = Worker(
            id=uuid4() if why == "dead" else worker.id,
            name="other",
            pid=1,
            provider="local",
            queues=["local.other"] if why == "another queue" else [QUEUE],
            models=[KLEIN_SMALL.slug],
            device="cpu",
            slots=1,
            state="ready",
            warm=[] if why == "cold" else [SMALL.slug if why == "another queue" else KLEIN_SMALL.slug],
        )
        workers.register(session, other)
        session.flush()
        asked = uuid4()
        assert not workers.leave_to_the_warm(session, asked, KLEIN_SMALL.slug, QUEUE, 60.0)
