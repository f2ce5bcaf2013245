"""What every dialect turns a call into: a canonical request whose pictures are not there yet, and the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fluxfarm.catalog import ModelProfile
from fluxfarm.jobs import JobType, Lane
from fluxfarm.request import RenderRequest, choose_size
from fluxfarm.routing import Wish
from fluxfarm.sizes import Size
from fluxfarm.webhooks import STANDARD, Telling

MATCH_INPUT = "match_input_image"  #: the aspect ratio that means the first reference's


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A picture that came through ``POST /v1/references``."""

    id: str


@dataclass(frozen=True, slots=True)
class Linked:
    """A picture at a stranger's URL."""

    url: str


@dataclass(frozen=True, slots=True)
class Inline:
    """A picture that came in the body."""

    body: bytes


Source = Uploaded | Linked | Inline


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeWish:
    """How the size was asked for; ``area`` is in megapixels.

    ``nearest`` takes the nearest ratio and area that the model draws instead of refusing one that it does not.
    """

    size: str | None = None
    aspect_ratio: str | None = None
    area: float | None = None
    width: int | None = None
    height: int | None = None
    nearest: bool = False

    def choose(self, profile: ModelProfile, kind: JobType, reference: Size | None) -> Size:
        """The exact size; ``reference`` is the first reference's, which only an edit or ``match_input_image`` takes.

        Raises:
            InvalidSize: no size, or one that the model cannot render.
            InvalidField: width without height, or the other way round.
        """
        follows = kind is JobType.IMAGE_EDITOR or self.aspect_ratio == MATCH_INPUT
        return choose_size(
            profile,
            size=self.size,
            aspect_ratio=self.aspect_ratio,
            area=self.area,
            width=self.width,
            height=self.height,
            reference=reference if follows else None,
            nearest=self.nearest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A call that was understood and is within the limits of its model; ``request`` still lacks its references."""

    request: RenderRequest
    wish: SizeWish
    prompt_object: dict[str, Any]  #: what the record echoes
    images: tuple[Source, ...] = ()
    own_fields: tuple[str, ...] = ()  #: options that somebody who may render must know, as they are a provider's own
    image_fields: tuple[str, ...] = ()  #: what the caller calls each of them, when not promptObject.images.0 and so on
    lora_field: str = "promptObject.loras"  #: what the caller calls them
    routing: Wish = field(default_factory=Wish)  #: who may render it
    lane: Lane = Lane.INTERACTIVE
    deadline: datetime | None = None
    tags: tuple[str, ...] = field(default=())
    external_id: str | None = None
    webhook: str | None = None  #: an endpoint's id or a URL
    telling: Telling = STANDARD  #: in whose words a URL is told

    @property
    def has_outside_pictures(self) -> bool:
        """Whether pictures must be fetched or redrawn before the job can be stored."""
        return any(not isinstance(image, Uploaded) for image in self.images)

    def image_field(self, index: int) -> str:
        """What the caller calls the picture, for errors."""
        return self.image_fields[index] if self.image_fields else f"promptObject.images.{index}"

    def with_references(self, keys: Sequence[str], first: Size | None) -> RenderRequest:
        """The canonical request; ``keys`` are of stored objects, ``first`` is the size of the first one.

        Raises:
            InvalidSize: the shape of the first reference is beyond the model.
        """
        if not keys:
            return self.request  # its size was chosen without one
        size = self.wish.choose(self.request.profile, self.request.type, first)
        return self.request.model_copy(update={"width": size.width, "height": size.height, "references": tuple(keys)})
