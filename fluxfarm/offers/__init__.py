"""What each remote provider offers of each model, as data: limits, prices, and what becomes of each parameter."""

from __future__ import annotations

from typing import Final

from fluxfarm.offers.bfl import BFL_OFFERS
from fluxfarm.offers.cloudflare import CLOUDFLARE_OFFERS
from fluxfarm.offers.fal import FAL_OFFERS
from fluxfarm.offers.offer import Offer
from fluxfarm.offers.onemin import ONEMIN_OFFERS
from fluxfarm.offers.openai import KINDS, Kind, openai_offers
from fluxfarm.offers.replicate import REPLICATE_OFFERS
from fluxfarm.offers.treatments import Behaviour, Treatment

__all__ = [
    "EXTRAS",
    "KINDS",
    "OFFERS",
    "Behaviour",
    "Kind",
    "Offer",
    "Treatment",
    "find_offer",
    "offers_for",
    "openai_offers",
]

#: the providers of their own protocol; named endpoints of the OpenAI shape come from the configuration
OFFERS: Final = (*FAL_OFFERS, *REPLICATE_OFFERS, *BFL_OFFERS, *CLOUDFLARE_OFFERS, *ONEMIN_OFFERS)
#: every field that is some provider's own
EXTRAS: Final = frozenset(
    name for extras in (*(one.extras for one in OFFERS), *(one.extras for one in KINDS.values())) for name in extras
)


def offers_for(model: str) -> tuple[Offer, ...]:
    """Every remote offer of a model, by its slug; empty for a model that only the farm has."""
    return tuple(offer for offer in OFFERS if offer.model == model)


def find_offer(provider: str, model: str) -> Offer | None:
    """The offer of one model at one provider."""
    return next((offer for offer in offers_for(model) if offer.provider == provider), None)
