"""A few steps of each stage: that they learn, resume to the bit and leave the unused channels alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training import latents, text, transformer, vae
from training.batches import Batches, Reader
from training.captions import caption
from training.muon import orthogonal
from training.pipeline import assemble

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Batches:
    autoencoder = vae.train(tmp_path_factory.mktemp("vae"), 1, 2, "cpu")
    latents.measure(autoencoder, 1, 64, "cpu")
    reader = Reader(text.new().eval(), text.new_tokenizer(1), text.directions(1), "cpu")
    return Batches(autoencoder, reader, latents.Stock.draw(autoencoder, 1, 200, 3.0, "cpu"), 3.0, "cpu")


def same(one: Any, two: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_the_unused_channels_of_the_autoencoder_stay_silent_and_its_checkpoint_is_found(tmp_path: Path) -> None:
    trained = vae.train(tmp_path, 3, 2, "cpu")
    with torch.no_grad():
        mean = trained.encode(torch.rand(1, 3, 64, 64)).latent_dist.mode()
        assert not mean[:, vae.ACTIVE :].any()
        noisy = mean.clone()
        noisy[:, vae.ACTIVE :] = 9.0
        assert torch.equal(trained.decode(mean).sample, trained.decode(noisy).sample)
    assert same(vae.train(tmp_path, 3, 2, "cpu"), trained)
    vae.refine(tmp_path, trained, 3, 2, "cpu")
    with torch.no_grad():
        again = vae.train(tmp_path, 3, 2, "cpu")
        picture = torch.rand(1, 3, 64, 64)
        assert torch.equal(trained.encode(picture).latent_dist.mode(), again.encode(picture).latent_dist.mode())
        assert not same(trained.decoder, again.decoder)


def test_every_kind_of_batch_fits_the_transformer(batches: Batches) -> None:
    rng = np.random.default_rng(4)
    model = transformer.new()
    for batch in (
        batches.parts(rng, 3),
        batches.whole(rng, 2, real=False),
        batches.whole(rng, 2, real=True),
        batches.sized(rng, 300),
        *(batches.edits(rng, 2) for _ in range(4)),
    ):
        count, tokens, used = batch.latents.shape
        assert used == latents.USED
        assert batch.weights.shape == (count, tokens)
        assert len(batch.places) == tokens
        loss = transformer.loss(model, batch)
        assert 1.0 < float(loss.detach()) < 6.0  # an untrained transformer answers 0: noise and picture are left


def test_the_transformer_learns_and_resumes_to_the_bit(batches: Batches, tmp_path: Path) -> None:
    whole = transformer.Trainer(tmp_path / "whole", "transformer", 5, 6, "cpu").train(batches)
    assert not whole.proj_out.weight[latents.USED :].any()
    assert not whole.x_embedder.weight[:, latents.USED :].any()

    first = transformer.Trainer(tmp_path / "halves", "transformer", 5, 6, "cpu")
    first.train(batches, stop=3)
    again = transformer.Trainer(tmp_path / "halves", "transformer", 5, 6, "cpu")
    assert same(again.train(batches), whole)
    assert same(transformer.latest(tmp_path / "halves"), whole)

    wider = transformer.Trainer(tmp_path / "halves", "sizes", 5, 2, "cpu", whole).train(batches)
    assert not same(wider, whole)
    assert same(transformer.latest(tmp_path / "halves"), wider)


def test_what_the_reader_gives_is_what_the_pipeline_reads() -> None:
    encoder, tokenizer = text.new().eval(), text.new_tokenizer(1)
    reader = Reader(encoder, tokenizer, text.directions(1), "cpu")
    rng = np.random.default_rng(6)
    prompts = [caption(text.random_request(rng), rng) for _ in range(3)]
    pipe = assemble(vae.new(), encoder, tokenizer, transformer.new())
    with torch.no_grad():
        expected, places = pipe.encode_prompt(prompts, max_sequence_length=text.LENGTH)
    torch.testing.assert_close(reader.read(prompts), expected, rtol=1e-4, atol=1e-4)
    for _ in range(8):  # some or all of the tokens, each at its own place
        read, own = reader.real([text.random_request(rng)], rng)
        assert read.shape[1] == len(own)
        assert torch.equal(own, places[0][own[:, 3]])


def test_places_of_pictures_are_those_of_the_pipeline() -> None:
    pipe = assemble(vae.new(), text.new(), text.new_tokenizer(1), transformer.new())
    grid = torch.zeros(1, 128, 8, 12)
    assert torch.equal(latents.places(192, 128, 0, "cpu"), pipe._prepare_latent_ids(grid)[0])
    two = pipe._prepare_image_ids([grid, grid])[0]
    assert torch.equal(torch.cat([latents.places(192, 128, t, "cpu") for t in (10, 20)]), two)


def test_an_orthogonal_update_has_singular_values_near_one() -> None:
    for shape in ((32, 32), (64, 16), (16, 64)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(7))))
        assert float(values.min()) > 0.3
        assert float(values.max()) < 1.4
