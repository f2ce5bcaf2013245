"""Prompts that are encoded before their turn: exact, a hint only, and no harm to what is drawn meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from fluxfarm.catalog import KLEIN_SMALL
from fluxfarm.errors import DatabaseUnavailable, DeviceLost, OutOfMemory, RenderFailed
from fluxfarm.jobs import JobState
from fluxfarm.request import RenderRequest
from fluxfarm.settings import Settings
from storage.database import Database
from storage.records import Tenant
from storage.repository import dispatch
from tests.making import QUEUE, make_job, make_request, read_job
from tests.workers.drawing import handle, klein_worker
from tests.workers.pipeline_drawings import SECRET, counted, drawing, hooked, pixels
from workers import pipeline_loading
from workers.foresight import Foresight
from workers.pipeline import Pipeline
from workers.pipeline_embeddings import Embeddings
from workers.residents import Loading, Residents
from workers.watchdog import Watchdog
from workers.worker import RenderWorker

LENGTH = KLEIN_SMALL.max_sequence_length
PATIENCE = 60  #: seconds, for a busy machine


def test_what_is_encoded_ahead_is_the_same_to_the_bit(own: Pipeline, klein: Pipeline) -> None:
    prompt = "a prompt of which nobody has heard before"
    assert own.encode_ahead(prompt, LENGTH)
    assert not own.encode_ahead(prompt, LENGTH), "it is there"
    first, second = (own._prompts.encode(prompt, LENGTH) for _ in range(2))
    made = klein._prompts.encode(prompt, LENGTH)
    assert (first.origin, second.origin, made.origin) == ("ahead", "kept", "encoded")
    assert torch.equal(first.values, made.values)
    how: dict[str, Any] = {"prompt": prompt, "guidance": 1.0, "max_sequence_length": LENGTH}
    with counted(own._pipe.text_encoder.model) as passes:
        found = pixels(own, **how)
    assert not passes
    assert found == pixels(klein, **how)


def test_a_drawing_in_progress_gives_the_same_picture_and_the_encoder_serves_one_at_a_time(
    own: Pipeline, klein: Pipeline
) -> None:
    how: dict[str, Any] = {"steps": 8, "acceleration": "high"}
    inside: list[int] = []
    most: list[int] = []

    def enter(*_: object) -> None:
        inside.append(1)
        most.append(len(inside))

    def leave(*_: object) -> None:
        inside.pop()

    def encode(name: str) -> int:
        made = 0
        while not drawn.done():
            made += own.encode_ahead(f"{name} {made}", LENGTH)
        return made

    entered = own._pipe.text_encoder.model.register_forward_pre_hook(enter)
    with ThreadPoolExecutor(3) as pool, hooked(own._pipe.text_encoder.model, leave):
        drawn = pool.submit(pixels, own, **how)
        made = [pool.submit(encode, name) for name in ("one", "two")]
        found = drawn.result(PATIENCE)
        assert sum(one.result(PATIENCE) for one in made) > 0
    entered.remove()
    assert max(most) == 1
    assert found == pixels(klein, **how)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), OutOfMemory),
        (RuntimeError(f"bad {SECRET}"), RenderFailed),
    ],
    ids=["memory", "other"],
)
def test_a_failure_is_nothing_to_the_drawing_in_progress(
    own: Pipeline, klein: Pipeline, error: Exception, raised: type[Exception]
) -> None:
    said: list[str] = []

    def fail(*_: object) -> None:
        raise error

    def step(done: int, _total: int) -> None:
        if done == 2:  # between one that is computed and one that is left out
            with hooked(own._pipe.text_encoder.model, fail), pytest.raises(raised) as caught:
                own.encode_ahead(SECRET, LENGTH)
            said.append(str(caught.value))

    images = own.draw(drawing(steps=8, acceleration="high"), step)
    assert [image.tobytes() for image in images] == pixels(klein, steps=8, acceleration="high")
    assert said
    assert SECRET not in said[0]
    assert own.encode_ahead(SECRET, LENGTH)


def test_a_device_that_is_lost_while_encoding_ahead_is_lost(own: Pipeline) -> None:
    def dead(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    with hooked(own._pipe.text_encoder.model, dead), pytest.raises(DeviceLost):
        own.encode_ahead("a", LENGTH)
    with pytest.raises(DeviceLost):
        pixels(own)
    assert not own.encode_ahead("b", LENGTH)


def test_a_model_that_goes_waits_for_the_prompt_and_leaves_its_embedding(klein_folder: Path) -> None:
    embeddings = Embeddings(1 << 24)
    own = Pipeline.load(klein_folder, device="cpu", embeddings=embeddings)
    encodes, go_on = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        encodes.set()
        assert go_on.wait(PATIENCE)

    with ThreadPoolExecutor(2) as pool, hooked(own._pipe.text_encoder.model, hold):
        ahead = pool.submit(own.encode_ahead, "a", LENGTH)
        assert encodes.wait(PATIENCE)
        closing = pool.submit(own.close)
        with pytest.raises(TimeoutError):
            closing.result(0.1)
        go_on.set()
        assert ahead.result(PATIENCE)
        closing.result(PATIENCE)
    assert not own.encode_ahead("b", LENGTH)
    again = Pipeline.load(klein_folder, device="cpu", embeddings=embeddings)
    assert again._prompts.encode("a", LENGTH).origin == "ahead"
    again.close()


def test_the_slot_that_waits_encodes_the_next_prompt_and_claims_nothing(
    start: Callable[[Settings], RenderWorker], local: Settings, own: Pipeline, database: Database, tenant: Tenant
) -> None:
    worker = klein_worker(start(local.model_copy(update={"encode_ahead": "on"})), own)
    first, second, third = (make_job(database, tenant, request=make_request(prompt=f"prompt {n}")) for n in range(3))
    with database.transaction() as session:
        assert dispatch.pick(session, QUEUE, 3) == [first.uuid, second.uuid, third.uuid]
    draws, go_on = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        draws.set()
        assert go_on.wait(PATIENCE)

    def is_there(prompt: str) -> bool:
        return own._prompts._embeddings.has(own._prompts._place(prompt, LENGTH))

    with ThreadPoolExecutor(2) as pool, hooked(own._pipe.transformer, hold):
        one = pool.submit(handle, worker, first)
        assert draws.wait(PATIENCE)
        other = pool.submit(handle, worker, second)
        until = time.monotonic() + PATIENCE
        while not (is_there("prompt 1") and is_there("prompt 2")):
            assert time.monotonic() < until
            time.sleep(0.02)
        for waiting in (second, third):
            found = read_job(database, waiting)
            assert (found.status, found.attempt, found.worker_id) == (JobState.QUEUED, 0, None)
        go_on.set()
        assert [one.result(PATIENCE), other.result(PATIENCE)] == ["SUCCESS", "SUCCESS"]
    origins = [(read_job(database, job).attempts[0].device or {})["prompt"] for job in (first, second)]
    assert origins == ["encoded", "ahead"]


@pytest.fixture
def turn() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@pytest.fixture
def foresee(settings: Settings, klein: Pipeline, turn: threading.Lock) -> Callable[..., Foresight]:
    def make(**changes: Any) -> Foresight:
        wanted = settings.model_copy(update={"encode_ahead": "on"} | changes)
        residents = Residents(wanted, lambda _: klein)
        residents.pipelines["klein"] = klein
        return Foresight(wanted, residents, Watchdog(PATIENCE), turn)

    return make


def asked(foresight: Foresight, *requests: RenderRequest) -> bool:
    """Whether it asked who is next."""
    calls: list[int] = []

    def upcoming() -> list[RenderRequest]:
        calls.append(1)
        return list(requests)

    foresight.look("klein", upcoming)
    return bool(calls)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, True),
        ({"encode_ahead": "auto"}, False),
        ({"encode_ahead": "off"}, False),
        ({"prompt_cache": 63}, False),
        ({"model_memory": 1}, False),
    ],
    ids=["on", "auto on a CPU", "off", "a small cache", "no room"],
)
def test_it_looks_ahead_where_that_is_wanted_and_has_room(
    foresee: Callable[..., Foresight], changes: dict[str, Any], wanted: bool
) -> None:
    assert asked(foresee(**changes)) is wanted


def test_it_looks_ahead_only_while_another_slot_draws(foresee: Callable[..., Foresight], turn: threading.Lock) -> None:
    foresight = foresee()
    foresight._residents.loading = Loading("other", None)
    assert not asked(foresight), "what a load will take is not known yet"
    foresight._residents.loading = None
    with foresight._one:
        assert not asked(foresight), "another slot looks ahead"
    turn.release()
    assert not asked(foresight)


def test_it_ends_when_the_device_is_free(
    foresee: Callable[..., Foresight], turn: threading.Lock, klein: Pipeline
) -> None:
    with hooked(klein._pipe.text_encoder.model, lambda *_: turn.release()):
        assert asked(foresee(), *(make_request(prompt=prompt) for prompt in ("first", "second")))
    assert klein._prompts.encode("first", LENGTH).origin == "ahead"
    assert klein._prompts.encode("second", LENGTH).origin == "encoded"


def test_after_a_failure_it_rests(
    foresee: Callable[..., Foresight], klein: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    foresight = foresee()

    def away() -> list[RenderRequest]:
        raise DatabaseUnavailable("no")

    def ask_in_vain() -> None:
        foresight.look("klein", away)

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def lose() -> None:
        with hooked(klein._pipe.text_encoder.model, fail):
            assert asked(foresight, make_request(prompt="never encoded"))

    for wrong in (ask_in_vain, lose):
        wrong()
        assert not asked(foresight)
        with monkeypatch.context() as patch:
            patch.setattr("workers.foresight.REST", 0.0)
            foresight.rest("over")
        assert asked(foresight)


def test_what_cannot_be_encoded_is_left_to_its_own_attempt(foresee: Callable[..., Foresight], klein: Pipeline) -> None:
    foresight = foresee()
    requests = (
        make_request(prompt="word " * 2000),
        make_request(prompt="rewritten later", prompt_upsampling=True),
        make_request(prompt="the last of them"),
    )
    assert asked(foresight, *requests)
    assert klein._prompts.encode("the last of them", LENGTH).origin == "ahead"
    assert klein._prompts.encode("rewritten later", LENGTH).origin == "encoded"
    assert asked(foresight), "and that was no failure"


def test_what_reading_a_prompt_takes_of_a_gpu_is_measured_at_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = [7]
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _device: taken.append(0))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _device: 100 + sum(taken))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _device: 100)
    assert pipeline_loading._taken(lambda: taken.append(5), "cuda:0") == 12
    assert pipeline_loading._taken(lambda: taken.append(5), "cpu") == 0
    assert taken == [7, 0, 5, 5]
