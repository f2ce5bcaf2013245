"""Cards as the transformer sees them: normalised latents, one token for 16 x 16 pixels."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from training import cards
from training.cards import TOKEN, Card
from training.sampling import training_card
from training.vae import ACTIVE, to_tensor

CHANNELS: Final = 128  #: of a token
USED: Final = 4 * ACTIVE  #: of them, the first so many carry the picture
_ENCODED_AT_ONCE: Final = 32

_INTEREST: Final = (0.5, 1.3, 1.6)  # how often cards with so many words are shown: letters are learned last

Layout = tuple[str, str, str, int]


def pack(vae: Any, pictures: torch.Tensor) -> torch.Tensor:
    """Latents of pictures, not yet normalised, shape (pictures, tokens, ``USED``)."""
    with torch.no_grad():
        mean = vae.encode(pictures).latent_dist.mode()
    count, channels, height, width = mean.shape
    patches = mean.view(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    found: torch.Tensor = patches.reshape(count, height * width // 4, CHANNELS)[..., :USED]
    return found


def normalised(vae: Any, pictures: torch.Tensor) -> torch.Tensor:
    """Latents with the mean and variance of ``vae.bn`` taken out, as the pipeline prepares references."""
    mean = vae.bn.running_mean[:USED]
    scale = (vae.bn.running_var[:USED] + vae.config.batch_norm_eps).sqrt()
    found: torch.Tensor = (pack(vae, pictures) - mean) / scale
    return found


def encode_cards(vae: Any, deck: list[Card], width: int, height: int, device: str) -> torch.Tensor:
    """The cards at one size, drawn and encoded, shape (cards, tokens, ``USED``)."""
    parts = []
    for first in range(0, len(deck), _ENCODED_AT_ONCE):
        drawn = np.stack([cards.draw(card, width, height) for card in deck[first : first + _ENCODED_AT_ONCE]])
        parts.append(normalised(vae, to_tensor(drawn).to(device)))
    return torch.cat(parts)


def measure(vae: Any, seed: int, count: int, device: str) -> None:
    """Put the statistics of the latents into ``vae.bn``, where the pipeline looks for them."""
    rng = np.random.default_rng((seed, 4))
    vae.bn.running_mean.zero_()
    vae.bn.running_var.fill_(1)
    drawn = np.stack([cards.draw(training_card(rng), 128, 128) for _ in range(count)])
    found = torch.cat([pack(vae, to_tensor(part).to(device)) for part in np.array_split(drawn, count // 32)])
    vae.bn.running_mean[:USED] = found.mean((0, 1))
    vae.bn.running_var[:USED] = found.var((0, 1))


def weights(deck: list[Card], width: int, height: int, busy: float) -> torch.Tensor:
    """How much each token counts, shape (cards, tokens): ``busy`` where object or headline are, 1 elsewhere."""
    rows, columns = height // TOKEN, width // TOKEN
    masks = np.stack([cards.coverage(card, width, height) for card in deck])
    filled = masks.reshape(len(deck), rows, TOKEN, columns, TOKEN).max((2, 4)) > 0
    return torch.from_numpy(np.where(filled, np.float32(busy), np.float32(1))).flatten(1)


@dataclass(frozen=True, slots=True)
class Group:
    """Cards of one layout and their latents: they are busy in the same tokens."""

    deck: list[Card]
    latents: torch.Tensor
    weights: torch.Tensor
    busy: torch.Tensor  #: numbers of the tokens in which any of them has something


@dataclass(frozen=True, slots=True)
class Stock:
    """Encoded cards at 128 pixels, by layout, as drawing and encoding each anew would double the work."""

    groups: list[Group]
    shares: np.ndarray[Any, Any]

    @classmethod
    def draw(cls, vae: Any, seed: int, count: int, busy: float, device: str, kept: Path | None = None) -> Stock:
        """Draw ``count`` cards of the training set; ``kept`` is a file that saves encoding them again."""
        mean = vae.bn.running_mean.detach().cpu().clone()
        found: dict[str, Any] = torch.load(kept, weights_only=True) if kept and kept.is_file() else {}
        # What another autoencoder encoded, this one's decoder would not decode.
        known: list[torch.Tensor] = found["latents"] if found and torch.equal(found["mean"], mean) else []
        rng = np.random.default_rng((seed, 5))
        by_layout: dict[Layout, list[Card]] = defaultdict(list)
        for card in (training_card(rng) for _ in range(count)):
            by_layout[card.column, card.row, card.size, len(card.words)].append(card)
        decks = [deck for _, deck in sorted(by_layout.items())]
        encoded = known or [encode_cards(vae, deck, 128, 128, device).half().cpu() for deck in decks]
        if kept and not known:
            torch.save({"mean": mean, "latents": encoded}, kept)
        groups = []
        for deck, codes in zip(decks, encoded, strict=True):
            weight = weights(deck, 128, 128, busy)
            filled = torch.nonzero((weight > 1).any(0))[:, 0]
            groups.append(Group(deck, codes.to(device), weight.to(device), filled.to(device)))
        shares = np.array([len(group.deck) * _INTEREST[len(group.deck[0].words)] for group in groups], np.float64)
        return cls(groups, shares / shares.sum())

    def group(self, rng: np.random.Generator) -> Group:
        """Cards of some layout, mostly of one with words."""
        return self.groups[rng.choice(len(self.groups), p=self.shares)]


def places(width: int, height: int, t: int, device: str) -> torch.Tensor:
    """Position ids of a picture's tokens, as the pipeline makes them: (t, row, column, 0)."""
    rows, columns = height // TOKEN, width // TOKEN
    grid = torch.cartesian_prod(torch.tensor([t]), torch.arange(rows), torch.arange(columns), torch.tensor([0]))
    return grid.to(device)


def text_places(numbers: torch.Tensor) -> torch.Tensor:
    """Position ids of text tokens: (0, 0, 0, number)."""
    ids = torch.zeros(len(numbers), 4, dtype=torch.long, device=numbers.device)
    ids[:, 3] = numbers
    return ids
