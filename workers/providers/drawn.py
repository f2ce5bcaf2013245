"""What every way to draw gives back, whether the farm's own device drew or a provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

from PIL.Image import Image

from fluxfarm.request import RenderRequest
from workers.leases import Held
from workers.pipeline_previews import OnPreview
from workers.turns import Take

Stored = dict[str, Any]  #: columns of an image that is in the store already
Keep = Callable[[int, Image, int], Stored]  #: puts picture ``n`` with its seed into the store at once


@dataclass(frozen=True, slots=True)
class Drawn:
    """The pictures of a job in their order: still to be encoded, or stored already; and how they came about."""

    images: list[Image | Stored]
    revision: str
    timings: dict[str, float]  #: seconds
    seeds: tuple[int, ...] | None = None  #: where they are not the request's
    provider: str = "local"
    cost: Decimal = Decimal(0)  #: USD that the tenant is charged for what is not settled yet
    device: Mapping[str, str | float] | None = None  #: how its kernels were set, and what it took of the device
    batch: Mapping[str, int] | None = None  #: position and size in the call, where it drew more than one picture
    calls: Mapping[UUID, Decimal] = field(default_factory=dict)  #: paid calls to be closed with the attempt


class Renderer(Protocol):
    """What a worker process draws with."""

    @property
    def name(self) -> str:
        """What the attempts and the list of workers call it."""

    @property
    def models(self) -> tuple[str, ...]:
        """Slugs that can be rendered."""

    @property
    def device(self) -> str:
        """What it draws on."""

    def turn(self) -> AbstractContextManager[Take]:
        """Around the claim and the drawing; what it gives is called between them, and waits for the device."""

    def most(self, request: RenderRequest) -> int:
        """How many pictures like that one call may draw, those of other jobs among them."""

    def warm_up(self) -> None:
        """Get ready for the first job."""

    def draw(self, held: Held, references: tuple[bytes, ...], keep: Keep, on_preview: OnPreview | None = None) -> Drawn:
        """Draw what the held job asks for; raises leaves of ``RenderError``."""

    def wind_up(self, held: Held) -> None:
        """The attempt is over without a result: if the job is over too, stop what still runs for it elsewhere."""

    def give_up_device(self) -> None:
        """No render on this device can be trusted any more."""

    def close(self) -> None:
        """Free what is held."""
