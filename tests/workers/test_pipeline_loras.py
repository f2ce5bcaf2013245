"""LoRAs on the real small model: what they change, and that nothing of them is left."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from fluxfarm.errors import Canceled, LoraUnusable, RenderFailed
from tests.workers.lora_files import make_lora
from tests.workers.pipeline_drawings import counted, drawing, pixels, quietly
from workers.pipeline import Pipeline
from workers.pipeline_batch import Member
from workers.pipeline_loras import LoraFile


@pytest.fixture
def red(own: Pipeline, tmp_path: Path) -> LoraFile:
    return LoraFile("red", make_lora(tmp_path / "red.safetensors", own._pipe.transformer), 1.0)


def scaled(lora: LoraFile, scale: float) -> LoraFile:
    return LoraFile(lora.name, lora.path, scale)


def adapters(pipeline: Pipeline) -> list[str]:
    return list(pipeline._pipe.get_list_adapters().get("transformer", ()))


def test_a_lora_changes_the_picture_by_its_scale_and_leaves_nothing_behind(own: Pipeline, red: LoraFile) -> None:
    plain = pixels(own)
    whole, half = (pixels(own, loras=(scaled(red, scale),)) for scale in (1.0, 0.5))
    assert len({*plain, *whole, *half}) == 3
    assert pixels(own, loras=(scaled(red, 0.0),)) == plain
    assert pixels(own, loras=(red,)) == whole
    assert pixels(own) == plain
    assert adapters(own) == []


@pytest.mark.filterwarnings("ignore:Already found a .peft_config.:UserWarning")  # that there are two is what is meant
def test_two_add_up(own: Pipeline, red: LoraFile, tmp_path: Path) -> None:
    blue = LoraFile("blue", make_lora(tmp_path / "blue.safetensors", own._pipe.transformer, seed=1), 1.0)
    one, other, both = (pixels(own, loras=loras) for loras in ((red,), (blue,), (red, blue)))
    assert len({*one, *other, *both}) == 3
    assert adapters(own) == ["lora0", "lora1"]


def test_its_load_is_part_of_what_the_drawing_took(
    own: Pipeline, red: LoraFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = own._pipe.load_lora_weights

    def slowly(*what: Any, **how: Any) -> None:
        time.sleep(0.3)
        load(*what, **how)

    monkeypatch.setattr(own._pipe, "load_lora_weights", slowly)
    member = Member(drawing(loras=(red,)), quietly)
    own.draw_together([member])
    assert member.failure is None
    assert member.seconds >= 0.3


def test_the_next_job_is_the_models_own_also_after_a_stop(own: Pipeline, red: LoraFile) -> None:
    plain = pixels(own)

    def stop(_done: int, _total: int) -> None:
        raise Canceled("enough")

    with pytest.raises(Canceled):
        own.draw(drawing(loras=(red,)), stop)
    assert pixels(own) == plain


def test_one_that_could_not_be_taken_off_at_once_is_taken_off_before_the_next_job(
    own: Pipeline, red: LoraFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = pixels(own)
    bad = LoraFile("bad", tmp_path / "bad.safetensors", 1.0)
    bad.path.write_bytes(b"garbage")

    def refuse() -> None:
        raise RuntimeError("not now")

    with monkeypatch.context() as broken:
        broken.setattr(own._pipe, "unload_lora_weights", refuse)
        with pytest.raises(RenderFailed):
            pixels(own, loras=(red, bad))
    assert adapters(own) == ["lora0"]
    assert pixels(own) == plain
    assert adapters(own) == []


def test_a_file_is_read_once_for_jobs_in_a_row_and_again_when_it_has_changed(
    own: Pipeline, red: LoraFile, tmp_path: Path
) -> None:
    changed = make_lora(tmp_path / "changed.safetensors", own._pipe.transformer, seed=3)
    before = pixels(own, loras=(red,))
    layer = own._pipe.transformer.transformer_blocks[0].attn.to_q
    with counted(layer) as passes:
        assert pixels(own, loras=(red,)) == before
    assert passes  # the same layer, so it was not loaded anew
    changed.replace(red.path)
    os.utime(red.path, ns=(1, 1))
    assert pixels(own, loras=(red,)) != before


@pytest.mark.parametrize("fault", ["nothing fits", "wrong width", "garbage", "empty", "gone"])
def test_a_file_that_cannot_be_used_says_so_and_changes_nothing(
    own: Pipeline, red: LoraFile, tmp_path: Path, fault: str
) -> None:
    plain = pixels(own)
    path = tmp_path / "bad.safetensors"
    if fault in {"nothing fits", "wrong width"}:
        wrong = 3 if fault == "wrong width" else 0
        make_lora(path, own._pipe.transformer, wrong=wrong, keys="nowhere." if not wrong else "")
    elif fault != "gone":
        path.write_bytes(b"" if fault == "empty" else b"\x00garbage")
    bad = LoraFile("bad", path, 1.0)
    for wanted in ((bad,), (red, bad)):
        with pytest.raises(LoraUnusable, match="bad") as caught:
            pixels(own, loras=wanted)
        assert not caught.value.retryable
        assert str(tmp_path) not in caught.value.message
        assert pixels(own) == plain
        assert adapters(own) == []
