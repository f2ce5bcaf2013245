"""Acceleration: which passes are left out, what is left of them, and that no batch-mate changes a picture."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench import gpu_steps
from fluxfarm.acceleration import Acceleration, skipped_steps
from fluxfarm.errors import Canceled
from tests.workers.pipeline_drawings import counted, drawing, pixels, quietly
from workers.pipeline import Pipeline
from workers.pipeline_batch import Member
from workers.pipeline_steps import left_out


@pytest.mark.parametrize(
    ("steps", "regular", "high"),
    [(4, 0, 0), (7, 0, 0), (8, 3, 4), (28, 10, 14), (50, 19, 25)],
)
def test_the_schedule(steps: int, regular: int, high: int) -> None:
    counts: dict[Acceleration, int] = {"none": 0, "regular": regular, "high": high}
    for acceleration, count in counts.items():
        skipped = skipped_steps(steps, acceleration)
        assert len(skipped) == count
        assert not skipped & {*range(round(steps / 4)), steps - 1}


@pytest.mark.parametrize(
    ("guidance", "passes", "acceleration", "computed"), [(1.0, 1, "regular", 5), (3.0, 2, "high", 4)]
)
def test_left_out_steps_run_no_block_and_change_the_picture_a_little(
    klein: Pipeline, guidance: float, passes: int, acceleration: str, computed: int
) -> None:
    def drawn(wanted: str, seeds: tuple[int, ...] = (5,)) -> list[bytes]:
        return pixels(klein, steps=8, guidance=guidance, seeds=seeds, acceleration=wanted)

    plain = drawn("none")
    transformer = klein._pipe.transformer
    blocks = (transformer.transformer_blocks[0], transformer.single_transformer_blocks[-1], transformer.proj_out)
    with counted(blocks[0]) as first, counted(blocks[1]) as last, counted(blocks[2]) as out:
        found = drawn(acceleration, (5, 6))
    assert len(first) == len(last) == 2 * passes * computed
    assert len(out) == 2 * passes * 8
    assert found[0] != plain[0]
    apart = [abs(one - other) for one, other in zip(found[0], plain[0], strict=True)]
    assert sum(apart) / len(apart) < 20  # of 255
    assert drawn(acceleration) == found[:1]  # the second picture's state began anew, and so did this one's
    assert drawn("none") == plain


def test_dev_is_accelerated_too(dev: Pipeline) -> None:
    plain = pixels(dev, steps=8)
    with counted(dev._pipe.transformer.transformer_blocks[0]) as passes:
        assert pixels(dev, steps=8, acceleration="high") != plain
    assert len(passes) == 4
    assert pixels(dev, steps=8) == plain


@pytest.mark.parametrize("step", [1, 4])
def test_nothing_of_a_stopped_job_reaches_the_next_one(klein: Pipeline, step: int) -> None:
    plain = pixels(klein, steps=8)
    accelerated = pixels(klein, steps=8, acceleration="high")
    transformer = klein._pipe.transformer
    blocks = transformer.transformer_blocks, transformer.single_transformer_blocks

    def stop(done: int, _total: int) -> None:
        if done == step:
            raise Canceled("enough")

    with pytest.raises(Canceled):
        klein.draw(drawing(prompt="another", steps=8, seeds=(99,), acceleration="high"), stop)
    assert (transformer.transformer_blocks, transformer.single_transformer_blocks) == blocks
    assert not transformer._forward_pre_hooks
    assert pixels(klein, steps=8, acceleration="high") == accelerated
    assert pixels(klein, steps=8) == plain


def test_batch_mates_never_change_a_picture(klein: Pipeline) -> None:
    pipe: Any = klein._pipe
    prompts = ["a red cat", "a blue cup on a table", "sale"]

    def drawn(wanted: list[int]) -> torch.Tensor:
        with left_out(pipe.transformer, skipped_steps(8, "high"), passes=2):
            made = pipe(
                prompt=[prompts[index] for index in wanted],
                height=64,
                width=64,
                num_inference_steps=8,
                guidance_scale=3.0,
                max_sequence_length=64,
                generator=[torch.Generator().manual_seed(index) for index in wanted],
                output_type="pt",
            )
        images: torch.Tensor = made.images
        return images

    together = drawn([0, 1, 2])
    for index in (0, 2):
        assert float((drawn([index])[0] - together[index]).abs().max()) < 1 / 255


def test_fewer_steps_than_can_be_left_out_are_all_computed(klein: Pipeline) -> None:
    assert pixels(klein, steps=4, acceleration="high") == pixels(klein, steps=4)
    klein.draw(drawing(steps=1, acceleration="regular"), quietly)


def test_a_member_that_is_stopped_changes_nothing_of_the_others_acceleration(klein: Pipeline) -> None:
    def stop(done: int, _total: int) -> None:
        if done == 4:  # the next step would be left out
            raise Canceled("enough")

    fast = {"steps": 8, "acceleration": "high"}
    kept = Member(drawing(**fast), quietly)
    stopped = Member(drawing(prompt="sale", seeds=(9,), **fast), stop)
    klein.draw_together([kept, stopped], most=2)
    assert isinstance(stopped.failure, Canceled)
    assert kept.size == 2
    (alone,) = pixels(klein, **fast)
    assert max(abs(one - other) for one, other in zip(kept.images[0].tobytes(), alone, strict=True)) <= 1


def test_the_bench_of_a_gpu_leaves_out_what_the_farm_does(dev: Pipeline) -> None:
    pipe, skipped = dev._pipe, skipped_steps(12, "high")

    def drawn() -> torch.Tensor:
        generator = torch.Generator().manual_seed(3)
        made = pipe(
            prompt="a red cat", width=64, height=64, num_inference_steps=12, generator=generator, output_type="pt"
        )
        images: torch.Tensor = made.images
        return images

    plain = drawn()
    with left_out(pipe.transformer, skipped):
        farms = drawn()
    with gpu_steps.skipping(pipe.transformer, skipped):
        benchs = drawn()
    assert not torch.equal(farms, plain)
    assert torch.equal(benchs, farms)
