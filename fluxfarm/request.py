"""The one canonical request: what every dialect is turned into and what every provider is given."""

from __future__ import annotations

import secrets
import unicodedata
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from fluxfarm.acceleration import Acceleration
from fluxfarm.catalog import ModelProfile, find_model
from fluxfarm.errors import InvalidField, InvalidPrompt
from fluxfarm.jobs import JobType
from fluxfarm.loras import Lora
from fluxfarm.sizes import Size, parse_megapixels, parse_ratio, parse_size
from fluxfarm.sizes import from_ratio as size_from_ratio

OutputFormat = Literal["png", "jpeg", "webp", "avif", "gif"]
OUTPUT_FORMATS: Final = ("png", "jpeg", "webp", "avif", "gif")
MAX_PREVIEWS: Final = 3
MAX_SEED: Final = 2**63 - 1
MAX_PROMPT_CHARACTERS: Final = 4_000
MAX_PROMPT_BYTES: Final = 16_000
NOT_EFFECTIVE: Final = {
    *("type", "model", "prompt", "prompt_upsampling", "references", "previews", "options", "ignored", "seeds")
}  #: what of a request is told elsewhere in the record


class RenderRequest(BaseModel):
    """What to render, with nothing left open: exact size in pixels, one seed per image, steps, guidance."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: JobType
    model: str
    prompt: str
    width: int
    height: int
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    steps: int
    guidance: float
    output_format: OutputFormat
    output_quality: int
    references: tuple[str, ...] = ()
    acceleration: Acceleration = "none"  #: as the farm's own workers do it
    loras: tuple[Lora, ...] = ()  #: of the farm's folder
    prompt_upsampling: bool = False  #: rewrite the prompt first, where that can be done
    previews: Annotated[int, Field(ge=0, le=MAX_PREVIEWS)] = 0  #: of each image, while it is drawn
    options: dict[str, Any] = Field(default_factory=dict)  #: what only a remote provider may have
    ignored: tuple[str, ...] = ()  #: names that the caller sent and that change nothing here

    @property
    def n(self) -> int:
        """How many images."""
        return len(self.seeds)

    @property
    def size(self) -> Size:
        """The exact size that was asked for; it may be no multiple of 16."""
        return Size(self.width, self.height)

    @property
    def profile(self) -> ModelProfile:
        """Limits and defaults of the model."""
        return find_model(self.model)

    def effective(self) -> dict[str, Any]:
        """The parameters as they are used, for the record."""
        return self.model_dump(mode="json", exclude=NOT_EFFECTIVE)


def check_prompt(text: str) -> str:
    """The prompt in NFC, without spaces around it.

    Raises:
        InvalidPrompt: empty, over 4,000 code points or 16 kB, a lone surrogate, NUL or another control character.
    """
    if not text.isprintable() and any(unicodedata.category(character) == "Cs" for character in text):
        raise InvalidPrompt("The prompt holds a lone surrogate (half a character); send well-formed text.")
    prompt = unicodedata.normalize("NFC", text).strip()
    if not prompt:
        raise InvalidPrompt("The prompt is empty; say what to draw.")
    if len(prompt) > MAX_PROMPT_CHARACTERS or len(prompt.encode()) > MAX_PROMPT_BYTES:
        message = f"The prompt has {len(prompt):,} characters; at most {MAX_PROMPT_CHARACTERS:,} (16 kB) are read."
        raise InvalidPrompt(message)
    if not prompt.isprintable() and any(
        unicodedata.category(character) == "Cc" and character not in "\t\n\r" for character in prompt
    ):
        raise InvalidPrompt("The prompt holds a control character; only tab and line breaks may stand beside text.")
    return prompt


def choose_seeds(seed: int | None, n: int) -> tuple[int, ...]:
    """One seed per image: the given one and its successors, or random ones; always recorded.

    Raises:
        InvalidField: the seed is outside 0 to 2**63 - 1.
    """
    if seed is None:
        return tuple(secrets.randbelow(MAX_SEED + 1) for _ in range(n))
    if not 0 <= seed <= MAX_SEED:
        raise InvalidField("seed must be 0 to 9223372036854775807 (2^63 - 1).", param="seed")
    return tuple((seed + index) % (MAX_SEED + 1) for index in range(n))


def choose_size(
    profile: ModelProfile,
    *,
    size: str | None = None,
    aspect_ratio: str | None = None,
    area: str | float | None = None,
    width: int | None = None,
    height: int | None = None,
    reference: Size | None = None,
    nearest: bool = False,
) -> Size:
    """The exact size, by Lumenfall's rule: ``size`` wins over ``width``/``height``, these over ratio and area.

    ``area`` is a tier or a number of megapixels. With nothing said an edit takes the shape of its first reference at
    the model's default area, and a generation the model's default size. ``nearest`` bends a shape or an area that the
    model does not draw; a size in pixels is taken as it is or refused.

    Raises:
        InvalidSize: not a size, or one that the model cannot render.
        InvalidField: width without height, or the other way round.
    """
    default = profile.default_size
    megapixels = parse_megapixels(area) if area is not None else default.megapixels
    if (width is None) != (height is None):
        raise InvalidField("width and height go together; one of them is missing.", param="width")
    if size is not None and size.strip().lower() != "auto":
        chosen = parse_size(size, megapixels)
    elif width is not None and height is not None:
        chosen = Size(width, height)
    elif aspect_ratio is not None and aspect_ratio != "match_input_image":
        chosen = size_from_ratio(parse_ratio(aspect_ratio), megapixels)
    elif reference is not None:
        chosen = size_from_ratio(reference.width / reference.height, megapixels)
    elif area is not None:
        chosen = size_from_ratio(default.width / default.height, megapixels)
    else:
        chosen = default
    in_pixels = (size is not None and "x" in size.lower()) or width is not None
    if nearest and not in_pixels:
        chosen = profile.sizes.nearest(chosen)
    return profile.sizes.check(chosen, profile.slug)
