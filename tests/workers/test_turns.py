"""Whose turn it is on a device, and what may happen shortly before it is free."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from fluxfarm.errors import Canceled
from fluxfarm.jobs import JobState
from fluxfarm.settings import Settings
from storage.database import Database
from storage.records import Job, Tenant
from tests.making import make_job, make_request, must_claim, read_job, state
from tests.storage.test_attempts import end_lease, expire
from tests.workers.drawing import handle, klein_worker, local_provider
from tests.workers.pipeline_drawings import hooked
from tests.workers.test_render import wait_for
from workers.leases import Held
from workers.pipeline import Pipeline
from workers.turns import Turns
from workers.worker import RenderWorker

PATIENCE = 10.0  #: seconds
MOMENT = 0.05  #: seconds in which nothing must happen


class Slot:
    """A thread that waits for its turn, and what it has come to."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._end = threading.Event()
        self.claims, self.draws, self.is_over = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._turns.next() as take:
            self.claims.set()
            take()
            self.draws.set()
            assert self._end.wait(PATIENCE)
        self.is_over.set()

    def end(self) -> None:
        self._end.set()
        assert self.is_over.wait(PATIENCE)


def test_the_next_in_line_claims_when_the_end_is_near_and_draws_when_the_device_is_free() -> None:
    turns = Turns()
    first = Slot(turns)
    assert first.draws.wait(PATIENCE)
    second = Slot(turns)
    assert not second.claims.wait(MOMENT), "nothing is held for the length of a render"
    turns.nearly()
    assert second.claims.wait(PATIENCE)
    third = Slot(turns)
    assert not second.draws.wait(MOMENT)
    assert not third.claims.is_set(), "one is next, not two"
    first.end()
    assert second.draws.wait(PATIENCE)
    assert not third.claims.wait(MOMENT), "the word was for one turn"
    second.end()
    assert third.draws.wait(PATIENCE)
    third.end()
    assert not turns.locked()


def test_who_finds_nothing_to_draw_leaves_the_line_to_the_next() -> None:
    turns = Turns()

    def come_and_go() -> bool:
        with turns.next():
            return turns.locked()

    assert not come_and_go()
    with pytest.raises(LookupError), turns.next():
        raise LookupError
    with turns.next() as take:
        take()
        assert turns.locked()
        turns.nearly()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(come_and_go).result(PATIENCE), "it finds nothing, while the device still works"
        assert turns.locked()
    assert not turns.locked()


def held(database: Database, tenant: Tenant, count: int = 2) -> list[Held]:
    return [Held(must_claim(database, make_job(database, tenant).uuid), 30.0) for _ in range(count)]


def is_near(turns: Turns) -> bool:
    return turns._is_due.is_set()


def test_the_end_is_near_after_the_last_step_of_the_last_one(database: Database, tenant: Tenant) -> None:
    turns = Turns()
    one, other = held(database, tenant)
    with turns.next() as take:
        take()
        made = turns.once_all_are_drawn([one, other])
        for step in (1, 2):
            made(one)(step, 2)
        made(other)(1, 2)
        assert not is_near(turns)
        made(other)(2, 2)
        assert is_near(turns)
    assert (one.progress, other.progress) == ((2, 2), (2, 2))


def test_whoever_is_stopped_is_not_waited_for(database: Database, tenant: Tenant) -> None:
    turns = Turns()
    one, other = held(database, tenant)
    with turns.next() as take:
        take()
        made = turns.once_all_are_drawn([one, other])
        one.stop(Canceled("stop"))
        with pytest.raises(Canceled):
            made(one)(1, 2)
        assert not is_near(turns)
        made(other)(2, 2)
        assert is_near(turns)


def test_while_a_job_is_drawn_again_nobody_claims(database: Database, tenant: Tenant) -> None:
    turns = Turns()
    (one,) = held(database, tenant, 1)
    one.claim = replace(one.claim, attempt=2)
    with turns.next() as take:
        take()
        turns.once_all_are_drawn([one])(one)(2, 2)
        assert not is_near(turns), "it may kill the worker once more, and then alone"


@pytest.fixture
def worker(local: Settings, start: Callable[[Settings], RenderWorker], klein: Pipeline) -> RenderWorker:
    return klein_worker(start(local), klein)


def two_shapes(database: Database, tenant: Tenant) -> tuple[Job, Job]:
    """Which are not drawn in one call."""
    one, other = (make_job(database, tenant, request=make_request(steps=steps)) for steps in (2, 3))
    return one, other


def test_the_next_job_is_claimed_while_the_last_pixels_of_another_are_made(
    worker: RenderWorker, database: Database, tenant: Tenant, klein: Pipeline
) -> None:
    one, other = two_shapes(database, tenant)
    turns = local_provider(worker)._turns
    seen: list[str] = []

    def denoises(*_: object) -> None:
        if not seen:
            seen.append("denoises")
            pool.submit(handle, worker, other)
            wait_for(turns._head.locked)
            time.sleep(MOMENT)
            assert state(database, other) is JobState.QUEUED

    def decodes(*_: object) -> None:
        if len(seen) == 1:
            seen.append("decodes")
            wait_for(lambda: state(database, other) is JobState.RUNNING)
            assert state(database, one) is JobState.RUNNING
            assert read_job(database, other).step == 0

    steps, pixels = hooked(klein._pipe.transformer, denoises), hooked(klein._pipe.vae.decoder.conv_in, decodes)
    with ThreadPoolExecutor(1) as pool, steps, pixels:
        assert handle(worker, one) == "SUCCESS"
    assert seen == ["denoises", "decodes"]
    assert (state(database, one), state(database, other)) == (JobState.SUCCESS, JobState.SUCCESS)


def test_beside_the_second_attempt_of_a_job_the_next_one_is_not_claimed(
    worker: RenderWorker, database: Database, tenant: Tenant, klein: Pipeline
) -> None:
    one, other = two_shapes(database, tenant)
    must_claim(database, one.uuid)
    end_lease(database, one)
    assert expire(database) == [one.uuid]
    turns = local_provider(worker)._turns
    seen: list[JobState] = []

    def decodes(*_: object) -> None:
        if not seen:
            pool.submit(handle, worker, other)
            wait_for(turns._head.locked)
            time.sleep(MOMENT)
            seen.append(state(database, other))

    with ThreadPoolExecutor(1) as pool, hooked(klein._pipe.vae.decoder.conv_in, decodes):
        assert handle(worker, one) == "SUCCESS"
    assert seen == [JobState.QUEUED]
    assert read_job(database, one).attempt == 2
    assert state(database, other) is JobState.SUCCESS
