"""The remote providers that the settings name: where they are, whose key pays, what they offer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Final, Literal, Self

from pydantic import SecretStr

from fluxfarm.catalog import MODELS, find_model
from fluxfarm.errors import InvalidField, ModelNotFound
from fluxfarm.offers import KINDS, OFFERS, Offer, openai_offers
from fluxfarm.pricing import PerImage
from fluxfarm.settings import Settings

Protocol = Literal["fal", "replicate", "bfl", "cloudflare", "onemin", "openai"]

LOCAL: Final = "local"  #: the farm's own workers
AUTO: Final = "auto"
NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
OPENAI: Final = "FLUXFARM_OPENAI_ENDPOINTS"
PRICES: Final = "FLUXFARM_PRICES"

IN_FLIGHT: Final = {"bfl": 24}  #: calls of one account at a time; more are refused
PER_MINUTE: Final = {"replicate": 600, "cloudflare": 720}  #: submits of one account


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """One provider; without a key of the operator it serves only tenants who bring their own."""

    name: str
    protocol: Protocol
    base_url: str
    key: SecretStr
    offers: tuple[Offer, ...]
    account_id: str = ""

    @property
    def is_configured(self) -> bool:
        """Whether the operator pays for it."""
        return bool(self.key.get_secret_value())

    @property
    def in_flight(self) -> int | None:
        """Calls of one account that may run at once; None: any number."""
        return IN_FLIGHT.get(self.protocol)

    @property
    def per_minute(self) -> int | None:
        """Submits of one account that may be made in a minute; None: any number."""
        return PER_MINUTE.get(self.protocol)

    def offer(self, model: str) -> Offer | None:
        """What it offers of a model, by its slug."""
        return next((offer for offer in self.offers if offer.model == model), None)


class Remotes(Mapping[str, Remote]):
    """Every provider that this farm can speak to, by name."""

    def __init__(self, remotes: tuple[Remote, ...], *, enabled: bool) -> None:
        """``enabled``: jobs may leave the farm at all."""
        self._remotes = {remote.name: remote for remote in remotes}
        self.enabled = enabled

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Those of the settings.

        Raises:
            InvalidField: an endpoint or a price that cannot be read; no key is repeated.
        """
        own: tuple[tuple[Protocol, str, SecretStr, str], ...] = (
            ("fal", settings.fal_url, settings.fal_key, ""),
            ("replicate", settings.replicate_url, settings.replicate_key, ""),
            ("bfl", settings.bfl_url, settings.bfl_key, ""),
            ("cloudflare", settings.cloudflare_url, settings.cloudflare_key, settings.cloudflare_account),
            ("onemin", settings.onemin_url, settings.onemin_key, ""),
        )
        remotes = tuple(
            Remote(
                name=name,
                protocol=name,
                base_url=url.rstrip("/"),
                key=key,
                offers=tuple(offer for offer in OFFERS if offer.provider == name),
                account_id=account_id,
            )
            for name, url, key, account_id in own
        )
        remotes += tuple(_endpoints(settings.openai_endpoints.get_secret_value()))
        remotes = _priced(remotes, settings.prices)
        configured = any(remote.is_configured for remote in remotes)
        return cls(remotes, enabled=settings.remote == "on" or (settings.remote == "auto" and configured))

    def __getitem__(self, name: str) -> Remote:
        """The provider of this name."""
        return self._remotes[name]

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._remotes)

    def __len__(self) -> int:
        """How many."""
        return len(self._remotes)

    @property
    def configured(self) -> tuple[Remote, ...]:
        """Those that the operator pays for."""
        return tuple(remote for remote in self.values() if remote.is_configured)


def _priced(remotes: tuple[Remote, ...], text: str) -> tuple[Remote, ...]:
    """With the operator's own prices, ``provider/model=USD`` of one image, separated by commas."""
    found = {remote.name: {offer.model: offer for offer in remote.offers} for remote in remotes}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        place, _, amount = entry.partition("=")
        name, _, model = place.partition("/")
        try:
            price = Decimal(amount.strip())
            offers = found[name.strip()]
            offer = offers[find_model(model.strip()).slug]
        except (InvalidOperation, KeyError, ModelNotFound):
            price, offer = Decimal(-1), None
        if offer is not None and price.is_finite() and price >= 0:
            offers[offer.model] = replace(offer, tariff=PerImage(price), price_source="the settings")
        else:
            message = f"{PRICES}: {entry[:80]!r} is not provider/model=USD of a model that the provider offers."
            raise InvalidField(message, param=PRICES)
    return tuple(replace(remote, offers=tuple(found[remote.name].values())) for remote in remotes)


def _endpoints(text: str) -> Iterator[Remote]:
    """``name=url=key|slug=id|price=0.01``, separated by commas."""
    taken = {"local", "auto", "fal", "replicate", "bfl", "cloudflare", "onemin"}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        head, *rest = (part.strip() for part in entry.split("|"))
        name, _, place = head.partition("=")
        url, _, key = place.rpartition("=")
        if not NAME.fullmatch(name) or name in taken or not url.startswith(("https://", "http://")) or not key:
            raise InvalidField(
                f"{OPENAI}: entry {name[:32]!r} is not name=url=key with a name of its own.", param=OPENAI
            )
        taken.add(name)
        models, price = _models(name, rest)
        kind = name if name in KINDS else "openai"
        if not models and not KINDS[kind].models:
            models = {model.slug: model.slug for model in MODELS}
        offers = openai_offers(name, kind, models or None, price)
        yield Remote(name=name, protocol="openai", base_url=url.rstrip("/"), key=SecretStr(key), offers=offers)


def _models(name: str, parts: list[str]) -> tuple[dict[str, str], Decimal | None]:
    models: dict[str, str] = {}
    price: Decimal | None = None
    for part in parts:
        slug, _, value = part.partition("=")
        try:
            if slug == "price":
                price = Decimal(value)
            else:
                found = find_model(slug).slug
                models[found] = value or found
        except (InvalidOperation, ModelNotFound):
            message = f"{OPENAI}: {name}: {part!r} is neither a model of the catalogue nor price=USD."
            raise InvalidField(message, param=OPENAI) from None
    return models, price
