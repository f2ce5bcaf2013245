"""One model at one provider: limits, price, and what becomes of each parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from fluxfarm.jobs import JobType
from fluxfarm.offers.fitting import Shape, fit_pixels, fit_shape
from fluxfarm.offers.treatments import Behaviour, Treatment
from fluxfarm.pricing import Tariff
from fluxfarm.request import RenderRequest
from fluxfarm.sizes import MEGAPIXEL, Size, SizeLimits

UNSEEN: Final = Size(1024, 1024)  #: what a reference counts as while its size is not known

_SENT: Final = frozenset({Behaviour.PASSTHROUGH, Behaviour.RENAMED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One model at one provider; ``endpoints`` are the provider's own ids, by the kind of the job.

    Each image is a call of its own (``images_per_call`` is 1) wherever a provider draws several from one seed: so every
    image has a seed that can be drawn again. ``ratios`` and ``areas`` are set where the provider takes no pixels.
    """

    provider: str
    model: str  #: slug in the catalogue
    endpoints: Mapping[JobType, str]
    sizes: SizeLimits
    multiple: int  #: both sides are rounded to it before they are sent; the result is fitted back
    max_references: int
    reference_side: int | None = None  #: pixels that the longer side of a reference may have; larger ones are shrunk
    images_per_call: int = 1
    formats: tuple[str, ...]  #: our names of the formats that it makes; others are emulated
    parameters: Mapping[str, Treatment]
    tariff: Tariff
    price_source: str  #: where the price was read; an estimate says so
    ratios: tuple[str, ...] = ()
    areas: tuple[str, ...] = ()  #: tiers, smallest first
    extras: frozenset[str] = frozenset()  #: the provider's own fields that a caller may send to it
    constants: Mapping[str, Any] = field(default_factory=dict)  #: fields that go with every call

    def refusal(self, request: RenderRequest) -> str | None:
        """Why this offer cannot serve the request, as a sentence; None: it can."""
        if self.kind(len(request.references), request.type) not in self.endpoints:
            return f"{self.provider} does not edit with {self.model}."
        if len(request.references) > self.max_references:
            return f"{self.provider} takes at most {self.max_references} references for {self.model}."
        if request.loras:
            return f"{self.provider} cannot draw with this farm's LoRAs."
        if self.drawn_size(request.size) is None:
            return f"{self.provider} draws {self.model} {self._reach()}; {request.size} is out of its reach."
        return None

    def kind(self, references: int, asked: JobType = JobType.IMAGE_GENERATOR) -> JobType:
        """Whose endpoint serves a call: with references it is an edit, whatever the job is called."""
        return JobType.IMAGE_EDITOR if references else asked

    def drawn_size(self, asked: Size) -> Size | None:
        """The size that the provider is asked for, and drawn at; None: it cannot draw one that covers ``asked``."""
        if not self.ratios:
            return fit_pixels(asked, self.sizes, self.multiple)
        shape = self.shape(asked)
        return None if shape is None else shape.size

    def shape(self, asked: Size) -> Shape | None:
        """The same in ratio and tier, for a provider that takes no pixels."""
        return fit_shape(asked, self.ratios, self.areas, self.multiple)

    def price(self, request: RenderRequest, references: tuple[Size, ...] = ()) -> Decimal:
        """USD for all images of the request, as the provider's price list says; never rounded down.

        A reference whose size is not given counts as one megapixel.
        """
        seen = references + (UNSEEN,) * (len(request.references) - len(references))
        if self.reference_side is not None:
            seen = (Size(self.reference_side, self.reference_side),) * len(seen)
        return self.tariff(self.drawn_size(request.size) or request.size, seen, request.steps) * request.n

    def fields(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values under the provider's names, and the constants; what is emulated or ignored is left out.

        The adapter adds what it converts itself: the size and the references.
        """
        sent = dict(self.constants)
        for name, value in values.items():
            treatment = self.parameters.get(name)
            if treatment is None:
                sent |= {name: value} if name in self.extras else {}
            elif treatment.behaviour in _SENT:
                sent[treatment.target or name] = value
            elif treatment.convert is not None:
                sent[treatment.target or name] = treatment.convert(value)
        return sent

    @property
    def drawn_format(self) -> str:
        """The format to ask for: lossless where there is one, as the farm encodes the result itself."""
        return "png" if "png" in self.formats else self.formats[0]

    def _reach(self) -> str:
        if self.ratios:
            return f"up to {self.areas[-1]} megapixel(s) in shapes near {', '.join(self.ratios)}"
        area = f", {self.sizes.max_pixels / MEGAPIXEL:g} megapixels"
        return f"at {self.sizes.min_side} to {self.sizes.max_side} pixels a side{area}"
