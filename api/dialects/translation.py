"""From a dialect's own names to an order, and back to those names in whatever is said about it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from api.dialects.native import read_request
from api.dialects.native_body import PromptObject
from api.order import Inline, Order, Source
from api.strict import read
from fluxfarm.catalog import ModelProfile
from fluxfarm.errors import BadRequest
from fluxfarm.jobs import JobType


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """A call in the farm's own names.

    ``own`` gives the caller's name of each of these that is called otherwise, ``where`` the path to them; ``ignored``
    is what was sent and changes nothing, ``echo`` what the record shows of the call.
    """

    kind: JobType
    profile: ModelProfile
    asked: Mapping[str, Any]  #: fields of PromptObject; None counts as not said
    echo: dict[str, Any]
    pictures: tuple[tuple[str, Source], ...] = ()  #: with the caller's name of each
    ignored: tuple[str, ...] = ()
    own: Mapping[str, str] = field(default_factory=dict)
    where: str = ""  #: with a dot at its end

    def order(self, **more: Any) -> Order:
        """The order; ``more`` are fields of it that are no matter of the picture.

        Raises:
            BadRequest: one of its leaves, with the caller's own name of the field at fault.
        """
        said = {name: value for name, value in self.asked.items() if value is not None}
        try:
            asked = read(PromptObject, said)
            request, wish = read_request(self.kind, self.profile, asked, len(self.pictures))
        except BadRequest as error:
            self._reword(error)
            raise
        ignored = (*(self.own.get(name, name) for name in request.ignored), *self.ignored)
        return Order(
            request=request.model_copy(update={"ignored": ignored}),
            wish=wish,
            prompt_object=self.echo,
            images=tuple(source for _, source in self.pictures),
            lora_field=f"{self.where}loras",
            image_fields=tuple(name for name, _ in self.pictures),
            **more,
        )

    def _reword(self, error: BadRequest) -> None:
        name = error.param or "resolution"
        own = self.own.get(name, name)
        error.message = error.message.replace(name, own)
        error.param = self.where + own


def sent(body: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the names that the caller sent with a value."""
    return tuple(name for name in names if body.get(name) is not None)


def without_pictures(value: Any, sources: Mapping[str, Source]) -> Any:
    """What a caller sent, but for each data URI among ``sources`` its type and the SHA-256 of its bytes."""
    if isinstance(value, dict):
        return {name: without_pictures(inner, sources) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_pictures(inner, sources) for inner in value]
    if isinstance(value, str) and isinstance(source := sources.get(value), Inline):
        return f"{value.partition(',')[0]},{fingerprint(source)}"
    return value


def fingerprint(picture: Inline) -> str:
    """What the record shows in the place of a picture that came in the body."""
    return f"…sha256:{hashlib.sha256(picture.body).hexdigest()}"
