"""Trains the autoencoder of the small model: an AutoencoderKLFlux2 that is thin, and crisp on flat cards.

Of the 32 latent channels 12 carry the picture; the others are fixed at zero. So the transformer, whose stream is 128
wide, has room left besides the noisy latents of a token.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2
from torch.nn import functional

from training import cards
from training.checkpoints import Run
from training.sampling import random_card
from training.words import COLOURS

ACTIVE: Final = 12  #: latent channels in use
STEPS: Final = 1300
FINE_STEPS: Final = 800
_BATCH: Final = 12
_CROP: Final = 64  # pixels
_RATE: Final = 3e-3
_FINE_RATE: Final = 1.5e-3  # of the decoder alone
_WARM_UP: Final = 60
_KL: Final = 1e-4
_EDGE: Final = 6.0  # weight of pixels near an edge over flat ones
_SIZES: Final = ((128, 128), (128, 128), (128, 128), (192, 128), (128, 192), (192, 192), (256, 256))
_LATENT: Final = 32


def new() -> AutoencoderKLFlux2:
    """The untrained autoencoder."""
    vae = AutoencoderKLFlux2(
        block_out_channels=(24, 24, 24, 24),
        decoder_block_out_channels=(8, 16, 32, 48),
        layers_per_block=0,
        norm_num_groups=1,
        mid_block_add_attention=False,
    )
    with torch.no_grad():
        # A posterior as wide as its prior would drown the picture in noise at first.
        vae.quant_conv.bias[_LATENT:] = -6
    silence(vae)
    return vae


def silence(vae: Any) -> None:
    """Keep the unused channels at mean 0 and log-variance 0, and the decoder deaf to them."""
    with torch.no_grad():
        for first in (ACTIVE, _LATENT + ACTIVE):
            vae.quant_conv.weight[first : first + _LATENT - ACTIVE] = 0
            vae.quant_conv.bias[first : first + _LATENT - ACTIVE] = 0
        vae.post_quant_conv.weight[:, ACTIVE:] = 0


def train(folder: Path, seed: int, steps: int, device: str) -> Any:
    """Train, or go on where the folder's checkpoint stands; gives the finished autoencoder on ``device``."""
    torch.manual_seed(seed)
    vae = new().to(device)
    _fit(Run(folder, "vae", steps), vae, list(vae.parameters()), _RATE, seed, device)
    return vae


def refine(folder: Path, vae: Any, seed: int, steps: int, device: str) -> None:
    """Train the decoder alone: the latents stay as they are, so that a transformer may learn them meanwhile."""
    vae.requires_grad_(requires_grad=False)
    decoding = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    for weight in decoding:
        weight.requires_grad_()
    _fit(Run(folder, "decoder", steps), vae, decoding, _FINE_RATE, seed + 1, device)


def _fit(run: Run, vae: Any, weights: list[Any], rate: float, seed: int, device: str) -> None:
    optimizer = torch.optim.AdamW(weights, lr=rate, betas=(0.9, 0.98), weight_decay=1e-4)
    first = 0
    if found := run.resume():
        vae.load_state_dict(found["vae"])
        optimizer.load_state_dict(found["optimizer"])
        first = found["step"]
    for step in range(first + 1, run.steps + 1):
        rng = np.random.default_rng((seed, 1, step))
        torch.manual_seed(int(rng.integers(2**62)))
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, step / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / run.steps))
        pixels, weight = (part.to(device) for part in _crops(rng))
        posterior = vae.encode(pixels).latent_dist
        apart = vae.decode(posterior.sample()).sample - pixels
        error = (weight * (apart.abs() + 2 * apart.square())).mean()
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar)[:, :ACTIVE].mean()
        optimizer.zero_grad()
        (error + _KL * kl * ACTIVE).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        silence(vae)
        if step % 20 == 0:
            run.tell(step, float(error.detach()), f"off by {float(apart.detach().abs().mean()):.4f}")
        if run.is_due(step):
            run.save({"step": step, "vae": vae.state_dict(), "optimizer": optimizer.state_dict()})
    vae.eval()


def to_tensor(pictures: np.ndarray[Any, Any]) -> torch.Tensor:
    """RGB bytes, shape (pictures, height, width, 3), as the autoencoder takes them."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _crops(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Parts of cards around an object or a letter, in any colours, and the weight of each pixel."""
    masks = np.stack([_crop(rng) for _ in range(_BATCH)])[..., None]
    palette = np.array(list(COLOURS.values()), np.float32)
    known = palette[np.stack([rng.permutation(len(palette))[:2] for _ in range(_BATCH)])]
    colours = np.where(rng.random((_BATCH, 1, 1)) < 0.6, known, rng.uniform(0, 255, (_BATCH, 2, 3)))
    front, back = (colours[:, number, None, None].astype(np.float32) for number in (0, 1))
    pixels = to_tensor(back + masks * (front - back))
    cover = torch.from_numpy(masks[..., 0])[:, None]
    edge = functional.max_pool2d(cover, 5, 1, 2) + functional.max_pool2d(-cover, 5, 1, 2)
    return pixels, 1 + (_EDGE - 1) * edge


def _crop(rng: np.random.Generator) -> cards.Mask:
    width, height = _SIZES[rng.integers(len(_SIZES))]
    card = random_card(rng)
    whole = cards.coverage(card, width, height)
    left, top, side = cards.object_box(card, width, height)
    middle = (left + side / 2, top + side / 2)
    if card.words and rng.random() < 0.5:
        middle = (rng.uniform(0, width), rng.choice([0, height]))
    step = 16 if rng.random() < 0.8 else 1
    x, y = (
        int(np.clip(centre + rng.integers(-24, 25) - _CROP // 2, 0, room - _CROP)) // step * step
        for centre, room in zip(middle, (width, height), strict=True)
    )
    return whole[y : y + _CROP, x : x + _CROP]
