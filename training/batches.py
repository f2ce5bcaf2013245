"""What one training step learns from: a few small batches, each of one size and one kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from training import latents, text
from training.captions import NOTHING, Asked, caption, leave_open, of_card
from training.edits import edit
from training.sampling import training_card

_UNSAID: Final = 0.1  # share of each attribute that a caption leaves to the seed
_EMPTY: Final = 0.1  # share of empty captions, for true guidance
_ALL_TOKENS: Final = 0.25  # share of the batches with all tokens of the text
_SOME_TOKENS: Final = 20
_OTHERS: Final = 8  # of so many tokens, one is shown beside the busy ones
_ALL_OF_EDITS: Final = 0.3  # share of the edits with all tokens of the pictures
#: Sizes besides 128 x 128, the placements' ratios and larger squares, and how often each is shown: more often if there
#: are more places in it.
SIZES: Final = {
    (160, 128): 1, (192, 128): 1, (224, 128): 1, (256, 128): 1, (128, 160): 2, (128, 192): 2, (128, 224): 2,
    (128, 256): 2, (192, 192): 2, (256, 256): 4, (256, 144): 1, (144, 256): 2,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures to restore from noise: latents (B, N, used), what each token counts (B, N), text and positions.

    ``references`` are latents that the transformer sees without noise.
    """

    latents: torch.Tensor
    weights: torch.Tensor
    places: torch.Tensor
    text: torch.Tensor
    text_places: torch.Tensor
    references: torch.Tensor | None = None
    reference_places: torch.Tensor | None = None


class Reader:
    """Gives the text tokens of requests: from the real encoder, or, much cheaper, what it was trained to say."""

    def __init__(self, encoder: Any, tokenizer: Any, table: torch.Tensor, device: str) -> None:
        self._encoder = encoder
        self._tokenizer = tokenizer
        self._table = table
        self._device = device

    def ideal(self, asked: list[Asked], rng: np.random.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """``count`` tokens of the tail at random places, with a little noise."""
        stream = text.code(asked, self._table).to(self._device)[:, None].repeat(1, count, 1)
        stream += 0.1 * torch.randn_like(stream)
        normed = stream / stream.square().mean(-1, keepdim=True).sqrt()
        numbers = torch.from_numpy(np.sort(rng.choice(np.arange(4, text.LENGTH), count, replace=False)))
        return torch.cat([stream, stream, normed], -1), latents.text_places(numbers).to(self._device)

    def real(self, asked: list[Asked], rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens of real captions: mostly some of them, which is cheaper, else all."""
        read = self.read([caption(one, rng) for one in asked])
        places = latents.text_places(torch.arange(text.LENGTH)).to(self._device)
        if rng.random() < _ALL_TOKENS:
            return read, places
        some = torch.from_numpy(np.sort(rng.permutation(text.LENGTH)[:_SOME_TOKENS])).to(self._device)
        return read[:, some], places[some]

    def read(self, prompts: list[str]) -> torch.Tensor:
        """What the pipeline would hand to the transformer."""
        inputs = {name: value.to(self._device) for name, value in text.tokens(self._tokenizer, prompts).items()}
        with torch.no_grad():
            stream = text.live_streams(self._encoder, inputs)
            return torch.cat([stream, stream, self._encoder.model.norm(stream)], -1)


class Batches:
    """Makes them, each from its step's own random numbers."""

    def __init__(self, vae: Any, reader: Reader, stock: latents.Stock, busy: float, device: str) -> None:
        self._vae = vae
        self._reader = reader
        self._stock = stock
        self._busy = busy
        self._device = device

    def parts(self, rng: np.random.Generator, count: int) -> Batch:
        """Only the busy tokens of one layout, and a few others: most of a card is flat and soon learned."""
        group = self._stock.group(rng)
        chosen = torch.from_numpy(rng.integers(len(group.deck), size=count))
        seen = self._seen(group, rng)
        words, word_places = self._reader.ideal([of_card(group.deck[one]) for one in chosen], rng, 6)
        return Batch(
            latents=group.latents[chosen][:, seen].float(),
            weights=group.weights[chosen][:, seen],
            places=latents.places(128, 128, 0, self._device)[seen],
            text=words,
            text_places=word_places,
        )

    def whole(self, rng: np.random.Generator, count: int, *, real: bool) -> Batch:
        """Whole cards at 128 pixels, some with less or nothing said."""
        groups = [self._stock.group(rng) for _ in range(count)]
        chosen = [(group, int(rng.integers(len(group.deck)))) for group in groups]
        asked = [self._less(of_card(group.deck[number]), rng) for group, number in chosen]
        words, word_places = self._reader.real(asked, rng) if real else self._reader.ideal(asked, rng, 8)
        return Batch(
            latents=torch.stack([group.latents[number] for group, number in chosen]).float(),
            weights=torch.stack([group.weights[number] for group, number in chosen]),
            places=latents.places(128, 128, 0, self._device),
            text=words,
            text_places=word_places,
        )

    def sized(self, rng: np.random.Generator, tokens: int) -> Batch:
        """Whole cards at another size, as many as have about so many tokens."""
        shares = np.array(list(SIZES.values()))
        width, height = list(SIZES)[rng.choice(len(SIZES), p=shares / shares.sum())]
        area = width * height / 128**2
        deck = [training_card(rng) for _ in range(max(2, round(tokens / 64 / area)))]
        words, word_places = self._reader.real([self._less(of_card(card), rng) for card in deck], rng)
        return Batch(
            latents=latents.encode_cards(self._vae, deck, width, height, self._device),
            # Else the object of a large card would count for little beside all the flat tokens.
            weights=latents.weights(deck, width, height, self._busy * area).to(self._device),
            places=latents.places(width, height, 0, self._device),
            text=words,
            text_places=word_places,
        )

    def edits(self, rng: np.random.Generator, count: int) -> Batch:
        """Cards of 128 pixels and one layout, made from one or two others; mostly their busy tokens alone."""
        groups = [self._stock.group(rng) for _ in range(rng.integers(1, 3))]
        chosen = [rng.integers(len(group.deck), size=count) for group in groups]
        decks = [[group.deck[one] for one in numbers] for group, numbers in zip(groups, chosen, strict=True)]
        made = [
            edit(rng, one, two) for one, two in zip(decks[0], decks[1] if decks[1:] else [None] * count, strict=True)
        ]
        words, word_places = self._reader.real([NOTHING if rng.random() < _EMPTY else one for _, one in made], rng)
        whole = rng.random() < _ALL_OF_EDITS
        seen = [torch.arange(64, device=self._device) if whole else self._seen(group, rng) for group in groups]
        after = latents.encode_cards(self._vae, [new for new, _ in made], 128, 128, self._device)
        before = [
            group.latents[numbers][:, part].float() for group, numbers, part in zip(groups, chosen, seen, strict=True)
        ]
        return Batch(
            latents=after[:, seen[0]],
            weights=groups[0].weights[chosen[0]][:, seen[0]],
            places=latents.places(128, 128, 0, self._device)[seen[0]],
            text=words,
            text_places=word_places,
            references=torch.cat(before, 1),
            reference_places=torch.cat(
                [latents.places(128, 128, 10 * number, self._device)[part] for number, part in enumerate(seen, 1)]
            ),
        )

    def _seen(self, group: latents.Group, rng: np.random.Generator) -> torch.Tensor:
        """The busy tokens of a layout, and some others."""
        tokens = group.latents.shape[1]
        others = torch.from_numpy(rng.permutation(tokens)[: tokens // _OTHERS]).to(self._device)
        seen: torch.Tensor = torch.unique(torch.cat([group.busy, others]))
        return seen

    def _less(self, asked: Asked, rng: np.random.Generator) -> Asked:
        return NOTHING if rng.random() < _EMPTY else leave_open(asked, rng, _UNSAID)
