"""Drawings that share a call: the same pictures as alone, each with its own progress, previews, stop and failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fluxfarm.errors import Canceled, DeviceLost, OutOfMemory, PromptTooLong, RenderFailed
from tests.workers.pipeline_drawings import SECRET, counted, drawing, hooked, quietly
from workers.pipeline import Pipeline
from workers.pipeline_batch import Member, OnStep

PROMPTS = ("a red cat", "a blue square on the left", "sale", "a large green circle on a white background, at dusk")


def member(on_step: OnStep = quietly, on_preview: Any = None, **changes: Any) -> Member:
    return Member(drawing(**changes), on_step, on_preview)


def apart(one: bytes, other: bytes) -> int:
    """The largest difference of a value, of 255."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def bytes_of(*members: Member) -> list[bytes]:
    assert [member.failure for member in members] == [None] * len(members)
    return [image.tobytes() for member in members for image in member.images]


@pytest.mark.parametrize("shape", ["dev", "klein"])
def test_a_picture_of_a_batch_is_the_one_drawn_alone_but_for_rounding(
    request: pytest.FixtureRequest, shape: str
) -> None:
    pipeline: Pipeline = request.getfixturevalue(shape)
    asked: list[dict[str, Any]] = [
        {"prompt": prompt, "seeds": (7 + n,), "steps": 4} for n, prompt in enumerate(PROMPTS)
    ]
    alone = [bytes_of_one(pipeline, one) for one in asked]
    together = [member(**one) for one in asked]
    with counted(pipeline._pipe.transformer) as passes:
        pipeline.draw_together(together, most=4)
    assert len(passes) == 4 * (2 if shape == "klein" else 1)
    pictures = bytes_of(*together)
    assert max(apart(*pair) for pair in zip(alone, pictures, strict=True)) <= 1
    assert len(set(pictures)) == 4
    assert [(one.position, one.size) for one in together] == [(0, 4), (1, 4), (2, 4), (3, 4)]


def bytes_of_one(pipeline: Pipeline, changes: dict[str, Any]) -> bytes:
    (image,) = pipeline.draw(drawing(**changes), quietly)
    return image.tobytes()


def test_the_pictures_of_jobs_are_shared_out_over_calls(klein: Pipeline) -> None:
    steps: list[tuple[int, int]] = []
    jobs = [
        member(lambda *one: steps.append(one), seeds=(1, 2, 3), guidance=1.0),
        member(seeds=(4, 5), guidance=1.0),
    ]
    with counted(klein._pipe.transformer) as passes:
        klein.draw_together(jobs, most=2)
    assert len(passes) == 3 * 2  # pictures 1 and 2, 3 and 4, 5; two steps each
    assert steps == [(2, 6), (4, 6), (5, 6), (6, 6)]
    assert [len(job.images) for job in jobs] == [3, 2]
    assert [(job.position, job.size) for job in jobs] == [(0, 2), (1, 2)]
    assert jobs[0].seconds > jobs[1].seconds > 0
    expected = [klein.draw(drawing(seeds=(seed,), guidance=1.0), quietly)[0].tobytes() for seed in (1, 2, 3, 4, 5)]
    assert max(apart(*pair) for pair in zip(expected, bytes_of(*jobs), strict=True)) <= 1


class StopAt:
    def __init__(self, step: int) -> None:
        self.step, self.error = step, Canceled("enough")

    def __call__(self, done: int, _total: int) -> None:
        if done == self.step:
            raise self.error


def test_one_that_is_stopped_leaves_the_others_going(klein: Pipeline) -> None:
    stop = StopAt(2)
    jobs = [member(seeds=(seed,), steps=4) for seed in (1, 3)]
    jobs.insert(1, member(stop, seeds=(2,), steps=4))
    klein.draw_together(jobs, most=3)
    assert jobs[1].failure is stop.error
    assert jobs[1].images == []
    alone = [klein.draw(drawing(seeds=(seed,), steps=4), quietly)[0].tobytes() for seed in (1, 3)]
    assert max(apart(*pair) for pair in zip(alone, bytes_of(jobs[0], jobs[2]), strict=True)) <= 1


def test_when_all_are_stopped_the_call_ends_at_once(klein: Pipeline) -> None:
    jobs = [member(StopAt(step), steps=9, guidance=1.0) for step in (1, 3)]
    with counted(klein._pipe.transformer) as passes:
        klein.draw_together(jobs, most=2)
    assert len(passes) == 3
    assert [type(job.failure) for job in jobs] == [Canceled, Canceled]


def test_a_prompt_that_is_too_long_fails_alone(klein: Pipeline) -> None:
    jobs = [member(prompt=SECRET + " cat" * 600), member()]
    klein.draw_together(jobs, most=2)
    assert isinstance(jobs[0].failure, PromptTooLong)
    assert bytes_of(jobs[1]) == [bytes_of_one(klein, {})], "and the other one is drawn by itself"


def fails(error: Exception, rows: Callable[[int], bool]) -> Callable[..., None]:
    """A hook of the VAE that raises for calls of so many pictures."""

    def hook(_module: Any, _positional: Any, result: Any) -> None:
        if rows(result[0].shape[0] if isinstance(result, tuple) else result.shape[0]):
            raise error

    return hook


NO_ROOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


@pytest.mark.parametrize("error", [NO_ROOM, ValueError(SECRET)], ids=["memory", "crash"])
def test_a_batch_that_fails_is_drawn_again_one_by_one(own: Pipeline, error: Exception) -> None:
    steps: list[tuple[int, int]] = []
    expected = [bytes_of_one(own, {"seeds": (seed,)}) for seed in (1, 2)]
    jobs = [member(lambda *one: steps.append(one), seeds=(1,)), member(seeds=(2,))]
    with hooked(own._pipe.vae.decoder, fails(error, lambda rows: rows > 1)):
        own.draw_together(jobs, most=2)
    assert bytes_of(*jobs) == expected
    assert [(job.position, job.size) for job in jobs] == [(0, 1), (0, 1)], "the record tells how it was drawn"
    assert steps == [(1, 2), (2, 2), (2, 2), (2, 2)], "progress never goes back"


def test_one_for_which_there_is_no_room_even_alone_fails_and_the_pipeline_lives(own: Pipeline) -> None:
    jobs = [member(seeds=(1,)), member(seeds=(2,))]
    with hooked(own._pipe.vae.decoder, fails(NO_ROOM, lambda _: True)):
        own.draw_together(jobs, most=2)
    assert [type(job.failure) for job in jobs] == [OutOfMemory, OutOfMemory]
    assert bytes_of_one(own, {})


def test_a_lost_device_is_the_end_of_all(own: Pipeline) -> None:
    jobs = [member(seeds=(1,)), member(seeds=(2,)), member(seeds=(3,))]
    with hooked(own._pipe.transformer, fails(RuntimeError("CUDA error: an illegal access"), lambda _: True)):
        own.draw_together(jobs, most=2)
    assert [type(job.failure) for job in jobs] == [DeviceLost] * 3


def test_each_has_its_own_previews_and_one_that_breaks_keeps_the_others(klein: Pipeline) -> None:
    shown: list[tuple[int, int, int, int, bytes]] = []

    def show(job: int) -> Callable[..., None]:
        def keep(n: int, index: int, step: int, image: Any) -> None:
            shown.append((job, n, index, step, image.tobytes()))
            if job == 1:
                raise RenderFailed("nobody looks")

        return keep

    jobs = [member(on_preview=show(job), seeds=(job + 1,), steps=4, previews=2) for job in range(2)]
    jobs.append(member(seeds=(9,), steps=4))
    klein.draw_together(jobs, most=3)
    assert bytes_of(*jobs)
    assert [one[:4] for one in shown] == [(0, 0, 0, 1), (1, 0, 0, 1), (0, 0, 1, 3)]
    alone: list[bytes] = []
    klein.draw(drawing(seeds=(1,), steps=4, previews=2), quietly, lambda *one: alone.append(one[3].tobytes()))
    assert max(apart(shown[0][4], alone[0]), apart(shown[2][4], alone[1])) <= 1
