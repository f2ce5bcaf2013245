from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest
import torch

from fluxfarm.catalog import KLEIN_SMALL, SMALL
from fluxfarm.errors import ModelUnavailable
from workers import pipeline_small
from workers.pipeline import Pipeline
from workers.pipeline_loading import content_revision
from workers.pipeline_small import build_small, ensure_small


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_each_build_gives_the_same_bytes_and_leaves_the_global_generator_alone(
    dev_folder: Path, tmp_path: Path
) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    again = build_small(SMALL.slug, tmp_path / "again")
    assert torch.equal(torch.get_rng_state(), before)
    assert contents(again) == contents(dev_folder)
    assert content_revision(again) == content_revision(dev_folder)


@pytest.mark.parametrize("model", [SMALL, KLEIN_SMALL], ids=lambda model: model.slug)
def test_a_small_model_is_small_and_has_the_real_geometry(
    model: object, models_dir: Path, dev: Pipeline, klein: Pipeline
) -> None:
    pipeline, profile, layers = (dev, SMALL, 30) if model is SMALL else (klein, KLEIN_SMALL, 27)
    folder = ensure_small(profile.slug, models_dir)
    files = contents(folder)
    assert sum(map(len, files.values())) < 20_000_000
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl", ".py"))]
    assert json.loads(files["model_index.json"])["_class_name"] == profile.pipeline == pipeline.class_name
    assert pipeline.guidance_kind == profile.guidance_kind

    pipe = pipeline._pipe
    parameters = sum(p.numel() for part in (pipe.text_encoder, pipe.transformer, pipe.vae) for p in part.parameters())
    assert parameters < 5_000_000
    assert pipe.vae_scale_factor == 8
    assert pipe.vae.config.latent_channels == 32
    assert pipe.transformer.config.in_channels == 128
    assert pipe.text_encoder.config.get_text_config().num_hidden_layers == layers
    assert pipe.scheduler.config.use_dynamic_shifting is True


@pytest.mark.parametrize("text", ["a red cat", "été 猫 🎨", " \t two  spaces ", "\x00 <|im_end|>[INST]"])
def test_the_tokenizer_takes_any_text_and_gives_it_back(text: str, klein: Pipeline) -> None:
    tokenizer = klein._pipe.tokenizer
    assert tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == text


def test_a_finished_folder_is_taken_as_it_is_as_its_weights_may_be_trained_by_now(tmp_path: Path) -> None:
    folder = tmp_path / "flux-2-small"
    folder.mkdir()
    (folder / "model_index.json").write_text("trained")
    assert ensure_small(SMALL.slug, tmp_path) == folder
    assert contents(folder) == {"model_index.json": b"trained"}


def test_an_unfinished_folder_and_an_old_leftover_are_replaced_and_nothing_is_left_behind(
    tmp_path: Path, dev_folder: Path
) -> None:
    unfinished = tmp_path / "flux-2-small" / "vae"
    unfinished.mkdir(parents=True)
    (unfinished / "half.safetensors").write_bytes(b"x")
    old, fresh = (tmp_path / f".flux-2-small.building-{name}" for name in ("old", "fresh"))
    for leftover in (old, fresh):
        (leftover / "model").mkdir(parents=True)
    os.utime(old, (time.time() - 7200,) * 2)

    folder = ensure_small(SMALL.slug, tmp_path)

    assert contents(folder) == contents(dev_folder)
    assert sorted(tmp_path.iterdir()) == sorted([folder, fresh])  # somebody may be building in the fresh one


def test_many_may_build_the_same_folder_at_once(tmp_path: Path, dev_folder: Path) -> None:
    results: list[Path | Exception] = []

    def build() -> None:
        try:
            results.append(build_small(SMALL.slug, tmp_path / "model"))
        except ModelUnavailable as error:
            results.append(error)

    (tmp_path / "model").mkdir()  # an unfinished one, which all of them want to replace
    threads = [threading.Thread(target=build) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [tmp_path / "model"] * 6
    assert contents(tmp_path / "model") == contents(dev_folder)
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def test_the_trained_model_comes_with_the_farm_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ensure_small(KLEIN_SMALL.slug, tmp_path)
    assert (folder / "README.md").is_file()  # the model card
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(pipeline_small, "_SHIPPED", tmp_path / "gone")
    with pytest.raises(ModelUnavailable, match="missing from"):
        ensure_small(KLEIN_SMALL.slug, tmp_path)


def test_another_slug_or_a_place_that_cannot_be_written_is_model_unavailable(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="not one of the small models"):
        ensure_small("black-forest-labs/flux-2-dev", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ModelUnavailable, match="cannot be written") as caught:
        ensure_small(SMALL.slug, tmp_path / "file")
    assert str(tmp_path / "file") in caught.value.message
