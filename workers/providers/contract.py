"""What every remote provider is to the farm: one paid POST, polls, a cancel.

An adapter speaks one provider's protocol and nothing else: it never touches the record, never repeats a POST, never
sleeps. Its caller commits the intent before ``submit``, the ``Ticket`` before the first ``poll``, and downloads what a
``Finished`` names through the guarded client.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

from pydantic import SecretStr

from fluxfarm.errors import ProviderRefused
from fluxfarm.offers import Offer
from fluxfarm.sizes import Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whose key pays: the operator's or a tenant's own. ``name`` tells accounts apart in limits and breakers."""

    name: str
    key: SecretStr
    base_url: str  #: without a slash at the end
    account_id: str = ""  #: Cloudflare's, part of its URLs


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One paid call: as many images as ``seeds``, at most ``offer.images_per_call``."""

    offer: Offer
    prompt: str
    width: int  #: pixels, as the caller of the farm asked; the adapter converts by its offer
    height: int
    seeds: tuple[int, ...]
    steps: int
    guidance: float
    output_format: str
    output_quality: int
    references: tuple[bytes, ...] = ()  #: PNG files
    extra: Mapping[str, Any] = field(default_factory=dict)  #: options of the promptObject and the provider's own fields
    nonce: UUID  #: of the committed intent; goes into the webhook's URL
    webhook_url: str | None = None  #: where the provider may tell us of the end; None: poll only

    @property
    def endpoint(self) -> str:
        """The provider's id for this call: the one for edits when there are references."""
        return self.offer.endpoints[self.offer.kind(len(self.references))]

    @property
    def drawn(self) -> Size:
        """The size to ask for.

        Raises:
            ProviderRefused: the provider draws none that covers the asked one.
        """
        size = self.offer.drawn_size(Size(self.width, self.height))
        if size is None:
            raise ProviderRefused(f"{self.offer.provider} cannot draw {self.width}x{self.height}.")
        return size

    def fields(self) -> dict[str, Any]:
        """The provider's fields for everything but the size, the references and the number of images."""
        values = {
            "prompt": self.prompt,
            "seed": self.seeds[0],
            "num_inference_steps": self.steps,
            "guidance": self.guidance,
        }
        return self.offer.fields(dict(self.extra) | values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What a submit gave; enough to poll and to cancel after a crash. Stored as JSON, so it holds no key."""

    remote_id: str
    poll_url: str
    result_url: str = ""
    cancel_url: str = ""
    cost: str = ""  #: USD, where the answer to the submit names the price


@dataclass(frozen=True, slots=True)
class Running:
    """Not over yet; ``progress`` is 0 to 1 where the provider tells it, ``state`` the provider's own word."""

    progress: float | None = None
    state: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemotePicture:
    """A picture in the reply, or where it lies; exactly one of the two."""

    body: bytes | None = None
    url: str | None = None
    seed: int | None = None  #: what the provider says it drew with


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The end of a call that went well. ``cost`` in USD is what the provider reported, None when it says nothing."""

    pictures: tuple[RemotePicture, ...]
    cost: Decimal | None = None
    seconds: float | None = None  #: the provider's own time of the render
    revision: str = ""  #: the provider's version of the model, as far as it is told


class Provider(Protocol):
    """An adapter. Every method is one HTTP exchange and raises leaves of ``fluxfarm.errors.ProviderError``."""

    name: str
    result_hosts: tuple[str, ...]  #: ``host`` or ``.suffix``; results are downloaded from there and nowhere else

    def submit(self, call: Call, account: Account) -> Ticket | Finished:
        """Send the one POST; a synchronous provider answers with the end.

        Raises:
            OutcomeUnknown: the body was sent and no answer could be read; the call may have been accepted.
            ProviderError: any other leaf; the call was not accepted.
        """
        ...

    def poll(self, ticket: Ticket, account: Account) -> Running | Finished:
        """How the call stands.

        Raises:
            ProviderError: the end of a call that went badly, or a poll that failed for the moment (ProviderBusy).
        """
        ...

    def cancel(self, ticket: Ticket, account: Account) -> bool:
        """Ask the provider to stop; False: it cannot, or the call is over. Never raises for a finished call."""
        ...
