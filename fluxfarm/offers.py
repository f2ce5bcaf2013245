"""What each remote provider offers of each model, as data: limits, prices, and what becomes of each parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from fluxfarm.jobs import JobType
from fluxfarm.request import RenderRequest
from fluxfarm.sizes import Size, SizeLimits


class Behaviour(StrEnum):
    """What becomes of a parameter on its way to a provider: Lumenfall's four words and the honest fifth."""

    PASSTHROUGH = "passthrough"  #: sent as it is
    RENAMED = "renamed"  #: the same value under the provider's own name
    CONVERTED = "converted"  #: changed into the provider's form
    EMULATED = "emulated"  #: done by the farm, as the provider cannot
    IGNORED = "ignored"  #: neither the provider nor the farm can; it changes nothing


@dataclass(frozen=True, slots=True)
class Treatment:
    """One parameter: ``target`` is the provider's name or form of it, empty where there is none."""

    behaviour: Behaviour
    target: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One model at one provider; ``endpoints`` are the provider's own ids, by the kind of the job."""

    provider: str
    model: str  #: slug in the catalogue
    endpoints: Mapping[JobType, str]
    sizes: SizeLimits
    multiple: int  #: both sides are rounded to it before they are sent; the result is fitted back
    max_references: int
    images_per_call: int
    formats: tuple[str, ...]  #: our names of the formats that it makes; others are emulated
    parameters: Mapping[str, Treatment]
    price_call: Callable[[RenderRequest, tuple[Size, ...]], Decimal]  #: USD of one image with references of these sizes

    def refusal(self, request: RenderRequest) -> str | None:
        """Why this offer cannot serve the request, as a sentence; None: it can."""
        if request.type not in self.endpoints:
            return f"{self.provider} does not edit with {self.model}."
        if len(request.references) > self.max_references:
            return f"{self.provider} takes at most {self.max_references} references for {self.model}."
        return None

    def price(self, request: RenderRequest, references: tuple[Size, ...] = ()) -> Decimal:
        """USD for all images of the request, as the provider's price list says; never rounded down."""
        return self.price_call(request, references) * request.n


OFFERS: tuple[Offer, ...] = ()


def offers_for(model: str) -> tuple[Offer, ...]:
    """Every remote offer of a model, by its slug; empty for a model that only the farm has."""
    return tuple(offer for offer in OFFERS if offer.model == model)


def find_offer(provider: str, model: str) -> Offer | None:
    """The offer of one model at one provider."""
    return next((offer for offer in offers_for(model) if offer.provider == provider), None)
