"""How remote providers count what an image costs, in USD; every amount is a ``Decimal``, never rounded down.

A megapixel is 1024 x 1024 pixels. It is counted up to the next whole one, for the picture and for each reference by
itself, so each counts as one at least; what is larger than 4 megapixels is shrunk to 4 by the provider (Lumenfall's
pricing notes for FLUX.2 at fal and Replicate; Black Forest Labs' price page counts alike).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import Final, Protocol

from fluxfarm.sizes import MEGAPIXEL, Size

Sizes = tuple[Size, ...]

LARGEST: Final = 4  #: megapixels that one picture is counted as, at most
TILE: Final = 512  #: pixels, the side of Cloudflare's tiles
SMALLEST: Final = Decimal("0.000001")  #: USD; finer prices are rounded up to it, as the ledger keeps six places


class Tariff(Protocol):
    """The price of one image: drawn at a size, from references of these sizes, in so many steps."""

    def __call__(self, drawn: Size, references: Sizes, steps: int) -> Decimal:
        """USD."""
        ...


def megapixels(size: Size) -> int:
    """Counted up to the next whole one, 1 to 4."""
    return min(LARGEST, max(1, -(-size.pixels // MEGAPIXEL)))


@dataclass(frozen=True, slots=True)
class PerImage:
    """One price, whatever the size; what an operator states for a provider without a public price list."""

    usd: Decimal

    def __call__(self, drawn: Size, references: Sizes, steps: int) -> Decimal:  # noqa: ARG002 - a tariff's arguments
        """USD."""
        return self.usd


@dataclass(frozen=True, slots=True)
class PerMegapixel:
    """``first + further * (megapixels of the picture - 1) + reference * (megapixels of the references)``.

    Black Forest Labs (docs.bfl.ai, quick_start/pricing; 1 credit is $0.01), fal and Replicate.
    ``edited`` replaces ``first`` and ``further`` in a call with references, as fal does for klein.
    """

    first: Decimal
    further: Decimal
    reference: Decimal
    edited: Decimal | None = None

    def __call__(self, drawn: Size, references: Sizes, steps: int) -> Decimal:  # noqa: ARG002 - a tariff's arguments
        """USD."""
        first, further = self.first, self.further
        if references and self.edited is not None:
            first = further = self.edited
        inputs = sum(megapixels(size) for size in references)
        return first + further * (megapixels(drawn) - 1) + self.reference * inputs


@dataclass(frozen=True, slots=True)
class PerTile:
    """Tiles of 512 x 512, counted up on each side; times the steps where ``each_step``.

    Cloudflare Workers AI (developers.cloudflare.com/workers-ai/platform/pricing).
    """

    output: Decimal
    reference: Decimal
    each_step: bool

    def __call__(self, drawn: Size, references: Sizes, steps: int) -> Decimal:
        """USD."""
        once = self.output * _tiles(drawn) + self.reference * sum(_tiles(size) for size in references)
        return once * steps if self.each_step else once


@dataclass(frozen=True, slots=True)
class PerArea:
    """``usd * (width / 1024) * (height / 1024)``: DeepInfra's formula at the 28 steps that its images call takes."""

    usd: Decimal

    def __call__(self, drawn: Size, references: Sizes, steps: int) -> Decimal:  # noqa: ARG002 - a tariff's arguments
        """USD."""
        return (self.usd * drawn.pixels / MEGAPIXEL).quantize(SMALLEST, rounding=ROUND_UP)


def flat(usd_per_megapixel: str) -> PerMegapixel:
    """The same price for every megapixel in and out."""
    price = Decimal(usd_per_megapixel)
    return PerMegapixel(price, price, price)


def _tiles(size: Size) -> int:
    return -(-size.width // TILE) * -(-size.height // TILE)
