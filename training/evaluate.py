"""How well the model draws what held-out captions say: the nearest of all canonical cards decides, pixel by pixel.

A card is its background plus a mask times the difference of its two colours, and object and headline do not overlap. So
the squared distance to every card of the vocabulary, some 1.1 million of them, is a sum of few parts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fluxfarm.catalog import KLEIN_SMALL
from training import captions, cards
from training.cards import Card
from training.edits import edit
from training.sampling import held_out_card
from training.words import COLOURS, COLUMNS, HEADLINES, OBJECTS, ROWS, SIZES

Floats = NDArray[np.float32]

MEASURED: Final = ((128, 128), (192, 128), (128, 224), (256, 256))
SEED: Final = 7
_BLOCK: Final = 4  # pixels a side that are averaged before cards are compared
_BATCH: Final = 10
ATTRIBUTES: Final = ("background", "colour", "place", "size", "object", "headline")


@dataclass(frozen=True, slots=True)
class _Layout:
    example: Card
    objects: Floats  # (objects, pixels)
    bands: tuple[Floats, ...]  # (headlines, pixels) each


class Judge:
    """Names the card that a picture is nearest to."""

    def __init__(self, width: int, height: int) -> None:
        self._layouts = [_layout(card, width, height) for card in _examples()]

    def name(self, picture: cards.Pixels) -> Card:
        """The nearest card by squared distance of pixels, averaged over 4 x 4."""
        pixels = _reduced(picture.astype(np.float32))
        best: tuple[float, Card] | None = None
        for back, front in itertools.permutations(COLOURS, 2):
            base = np.array(COLOURS[back], np.float32)
            colour = np.array(COLOURS[front], np.float32) - base
            rest = pixels - base
            along, length, start = rest @ colour, float(colour @ colour), float((rest**2).sum())
            for layout in self._layouts:
                found = [_nearest(masks, along, length) for masks in (layout.objects, *layout.bands)]
                distance = start + sum(score for _, score in found)
                if best is None or distance < best[0]:
                    names = [number for number, _ in found]
                    card = replace(
                        layout.example,
                        object=tuple(OBJECTS)[names[0]],
                        colour=front,
                        background=back,
                        words=tuple(HEADLINES[number] for number in names[1:]),
                    )
                    best = (distance, card)
        assert best is not None
        return best[1]


def _examples() -> Iterator[Card]:
    """One card of each layout; between two words there is no room for rows."""
    for column, row, size, words in itertools.product(COLUMNS, ROWS, SIZES, range(3)):
        if words < 2 or row == "centre":
            yield Card("mug", "red", "white", column, row, size, HEADLINES[:words])


def _layout(example: Card, width: int, height: int) -> _Layout:
    objects = [_flat(cards.object_coverage(replace(example, object=name), width, height)) for name in OBJECTS]
    alone = [_band_card(example, number) for number in range(len(example.words))]
    words = tuple(np.stack([_flat(_word_coverage(card, word, width, height)) for word in HEADLINES]) for card in alone)
    return _Layout(example, np.stack(objects), words)


def _band_card(example: Card, number: int) -> Card:
    """A card whose only word stands where the word of that number stands in the example."""
    if len(example.words) < 2:
        return example
    return replace(example, row="bottom" if number == 0 else "top", words=example.words[:1])


def _word_coverage(card: Card, word: str, width: int, height: int) -> cards.Mask:
    return cards.headline_coverage(replace(card, words=(word,)), width, height)


def _nearest(masks: Floats, along: Floats, length: float) -> tuple[int, float]:
    scores = length * (masks**2).sum(1) - 2 * masks @ along
    number = int(scores.argmin())
    return number, float(scores[number])


def _flat(mask: cards.Mask) -> Floats:
    return _reduced(mask[..., None])[:, 0]


def _reduced(pixels: Floats) -> Floats:
    height, width, depth = pixels.shape
    blocks = pixels.reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK, depth)
    found: Floats = blocks.mean((1, 3)).reshape(-1, depth)
    return found


def draw_all(
    pipe: Any, prompts: list[str], size: tuple[int, int], references: list[list[Image.Image]] | None = None
) -> list[cards.Pixels]:
    """Draw each prompt once, with the settings of the catalogue; ``references`` are the pictures of each."""
    pictures: list[cards.Pixels] = []
    batch = _BATCH if references is None else 1  # the pipeline takes the pictures of one prompt a call
    for first in range(0, len(prompts), batch):
        part = prompts[first : first + batch]
        made = pipe(
            image=None if references is None else references[first],
            prompt=part,
            width=size[0],
            height=size[1],
            num_inference_steps=int(KLEIN_SMALL.steps.default),
            guidance_scale=KLEIN_SMALL.guidance.default,
            generator=[torch.Generator("cpu").manual_seed(SEED + first + number) for number in range(len(part))],
            max_sequence_length=KLEIN_SMALL.max_sequence_length,
            output_type="np",
        ).images
        pictures.extend(np.rint(made * 255).astype(np.uint8))
    return pictures


def score(pipe: Any, count: int, size: tuple[int, int]) -> dict[str, float]:
    """The share of held-out captions of which each attribute came out right, and ``all`` of them."""
    rng = np.random.default_rng(SEED)
    deck = [held_out_card(rng) for _ in range(count)]
    prompts = [captions.caption(captions.of_card(card), rng) for card in deck]
    return _shares(deck, draw_all(pipe, prompts, size))


def score_edits(pipe: Any, count: int, *, double: bool) -> dict[str, float]:
    """The same of cards that are made from one held-out card, or from two, at 128 pixels."""
    rng = np.random.default_rng(SEED)
    sources, made = [], []
    for _ in range(count):
        one, two = held_out_card(rng), held_out_card(rng)
        made.append(edit(rng, one, two if double else None))
        sources.append((one, two) if double else (one,))
    prompts = [captions.caption(asked, rng) for _, asked in made]
    references = [[Image.fromarray(cards.draw(card, 128, 128)) for card in deck] for deck in sources]
    return _shares([card for card, _ in made], draw_all(pipe, prompts, (128, 128), references))


def _shares(deck: list[Card], pictures: list[cards.Pixels]) -> dict[str, float]:
    judge = Judge(pictures[0].shape[1], pictures[0].shape[0])
    right: dict[str, list[bool]] = {name: [] for name in (*ATTRIBUTES, "all")}
    for asked, found in zip(deck, map(judge.name, pictures), strict=True):
        for name in ATTRIBUTES:
            if name != "headline" or asked.words:
                right[name].append(_attribute(asked, name) == _attribute(found, name))
        right["all"].append(asked == found)
    return {name: sum(values) / len(values) for name, values in right.items()}


def _attribute(card: Card, name: str) -> object:
    if name == "place":
        return card.column, card.row
    return card.words if name == "headline" else getattr(card, name)
