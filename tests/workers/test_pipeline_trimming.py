"""A text encoder without what nothing reads gives the same embeddings to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import Flux2KleinPipeline, Flux2Pipeline
from transformers import Mistral3ForConditionalGeneration, PretrainedConfig, Qwen3ForCausalLM

from fluxfarm.catalog import DEV, KLEIN_SMALL
from fluxfarm.settings import Settings
from fluxfarm.sources import ModelSource
from storage.queue import local_queue
from workers.pipeline import Pipeline
from workers.pipeline_trimming import is_trimmed, trim
from workers.providers.local import LocalProvider


def with_layers(config: PretrainedConfig, layers: int) -> PretrainedConfig:
    language = getattr(config, "text_config", config)
    language.num_hidden_layers = layers
    language.layer_types = None if getattr(language, "layer_types", None) is None else ["full_attention"] * layers
    return config


@pytest.mark.parametrize(
    ("shape", "pipeline_class", "encoder_class", "read"),
    [
        ("dev", Flux2Pipeline, Mistral3ForConditionalGeneration, 30),
        ("klein", Flux2KleinPipeline, Qwen3ForCausalLM, 27),
    ],
)
@pytest.mark.parametrize("more", [0, 1, 6])
def test_the_embeddings_are_the_same_to_the_bit(
    request: pytest.FixtureRequest, shape: str, pipeline_class: Any, encoder_class: Any, read: int, more: int
) -> None:
    folder: Path = request.getfixturevalue(f"{shape}_folder")
    config = with_layers(encoder_class.config_class.from_pretrained(folder / "text_encoder"), read + more)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        encoder = encoder_class(config).eval()
    pipe = pipeline_class.from_pretrained(folder, text_encoder=encoder, transformer=None, vae=None)
    language = getattr(encoder.model, "language_model", encoder.model)
    with torch.no_grad():
        whole, _ = pipe.encode_prompt("a red cat on a table")
        trim(encoder, pipeline_class.__name__)
        assert is_trimmed(encoder)
        assert len(language.layers) == read
        trimmed, _ = pipe.encode_prompt("a red cat on a table")
        language.layers = language.layers[:-1]
        with pytest.raises(IndexError):  # not one layer more could go
            pipe.encode_prompt("a red cat on a table")
    assert torch.equal(whole, trimmed)


@pytest.mark.parametrize(("shape", "slug", "trimmed"), [("klein", KLEIN_SMALL.slug, True), ("dev", DEV.slug, False)])
def test_by_default_only_a_model_that_rewrites_prompts_keeps_its_words(
    request: pytest.FixtureRequest, settings: Settings, shape: str, slug: str, *, trimmed: bool
) -> None:
    assert settings.own_upsampling
    source = ModelSource(slug, folder=request.getfixturevalue(f"{shape}_folder"))
    provider = LocalProvider(settings.model_copy(update={"models": (source,)}), (local_queue(slug),))
    assert is_trimmed(provider.residents.take(slug)._pipe.text_encoder) is trimmed
    provider.close()


def test_a_loaded_pipeline_is_trimmed_unless_its_words_are_wanted(dev_folder: Path, klein: Pipeline) -> None:
    assert is_trimmed(klein._pipe.text_encoder)
    for wanted in (True, False):
        dev = Pipeline.load(dev_folder, device="cpu", keep_words=wanted)
        assert is_trimmed(dev._pipe.text_encoder) is not wanted
        dev.close()
