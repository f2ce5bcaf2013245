"""What one training step learns from: a few small batches, each of one size and one kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from training import latents, text
from training.captions import NOTHING, Asked, caption, of_card, thin_out
from training.edits import edit
from training.sampling import training_card

_UNSAID: Final = 0.08  # share of each attribute that a caption leaves out
_EMPTY: Final = 0.1  # share of empty captions, for true guidance
_ALL_TOKENS: Final = 0.25  # share of the batches with all tokens of the text
_SOME_TOKENS: Final = 20
_OTHERS: Final = 8  # tokens of flat background beside the busy ones
#: Sizes besides 128 x 128: the placements' ratios, and larger squares.
SIZES: Final = (
    (160, 128), (192, 128), (224, 128), (256, 128), (128, 160), (128, 192), (128, 224), (128, 256),
    (192, 192), (256, 256), (256, 144), (144, 256),
)  # fmt: skip


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
        stock = self._stock
        group = stock.groups[rng.choice(len(stock.groups), p=stock.shares)]
        chosen = torch.from_numpy(rng.integers(len(group.deck), size=count))
        others = torch.from_numpy(rng.permutation(64)[:_OTHERS]).to(self._device)
        seen = torch.unique(torch.cat([group.busy, others]))
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
        stock = self._stock
        groups = [stock.groups[number] for number in rng.choice(len(stock.groups), count, p=stock.shares)]
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
        width, height = SIZES[rng.integers(len(SIZES))]
        deck = [training_card(rng) for _ in range(max(2, tokens * 256 // (width * height)))]
        words, word_places = self._reader.real([self._less(of_card(card), rng) for card in deck], rng)
        return Batch(
            latents=latents.encode_cards(self._vae, deck, width, height, self._device),
            weights=latents.weights(deck, width, height, self._busy).to(self._device),
            places=latents.places(width, height, 0, self._device),
            text=words,
            text_places=word_places,
        )

    def edits(self, rng: np.random.Generator, count: int) -> Batch:
        """Cards of 128 pixels made from one or two others."""
        double = rng.random() < 0.5
        made = [edit(rng, training_card, double=double) for _ in range(count)]
        asked = [NOTHING if rng.random() < _EMPTY else one for *_, one in made]
        words, word_places = self._reader.real(asked, rng)
        after = [new for _, new, _ in made]
        sources = list(zip(*(before for before, *_ in made), strict=True))
        return Batch(
            latents=latents.encode_cards(self._vae, after, 128, 128, self._device),
            weights=latents.weights(after, 128, 128, self._busy).to(self._device),
            places=latents.places(128, 128, 0, self._device),
            text=words,
            text_places=word_places,
            references=torch.cat(
                [latents.encode_cards(self._vae, list(deck), 128, 128, self._device) for deck in sources], 1
            ),
            reference_places=torch.cat(
                [latents.places(128, 128, 10 * (number + 1), self._device) for number in range(len(sources))]
            ),
        )

    def _less(self, asked: Asked, rng: np.random.Generator) -> Asked:
        return NOTHING if rng.random() < _EMPTY else thin_out(asked, rng, _UNSAID)
