"""Cloudflare Workers AI: ``POST /client/v4/accounts/{account}/ai/run/{model}`` in, a picture as base64 out."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, Field

from api.dialects.native import read_source
from api.dialects.translation import Translation, fingerprint, sent
from api.forms import FormFile, literal
from api.order import Inline, Order, Source
from api.strict import Strict, read
from fluxfarm.catalog import DEV, KLEIN_4B, KLEIN_9B, ModelProfile, find_model
from fluxfarm.errors import InvalidField
from fluxfarm.jobs import JobType
from fluxfarm.request import MAX_SEED
from fluxfarm.sizes import Size

PICTURE: Final = "input_image"  #: a file part, without its index
PICTURES: Final = ("input_image_0", "input_image_1", "input_image_2", "input_image_3")
FORMAT: Final = "jpeg"  #: what its samples save the picture as; no field chooses it
HOSTED: Final = (DEV, KLEIN_4B, KLEIN_9B)
SIZE: Final = Size(1024, 768)  #: of a hosted model when nobody says; also the side that is missing
IGNORED: Final = ("negative_prompt", "strength")
NUMBERS: Final = ("steps", "num_steps", "width", "height", "seed", "guidance", "strength")


class CloudflareRun(Strict):
    """What to draw. As a form each is a text part, and the pictures are file parts."""

    prompt: str
    steps: int | None = Field(None, ge=1, le=1000)
    num_steps: int | None = Field(None, ge=1, le=1000, description="The same, as the SDKs have it.")
    guidance: float | None = Field(None, ge=0, le=100)
    width: int | None = Field(None, ge=1, le=16_384, description="1024 when not said.")
    height: int | None = Field(None, ge=1, le=16_384, description="768 when not said.")
    seed: int | None = Field(None, ge=0, le=MAX_SEED)
    negative_prompt: str | None = Field(None, description="Listed as ignored.")
    strength: float | None = Field(None, ge=0, le=1, description="Listed as ignored.")
    image_b64: str | None = Field(None, description="A picture to edit, in base64.")
    image: list[int] | None = Field(None, description="A picture to edit: the bytes of its file.")
    input_image_0: str | None = Field(None, description="In JSON: a data URI or an https URL.")
    input_image_1: str | None = None
    input_image_2: str | None = None
    input_image_3: str | None = None


class CloudflarePicture(BaseModel):
    """What was drawn."""

    image: str = Field(description="A JPEG in base64.")


class CloudflareEnvelope(BaseModel):
    """Version 4 of the API wraps every result so."""

    result: CloudflarePicture
    success: bool = True
    errors: list[Any] = []
    messages: list[Any] = []


def from_form(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The text parts of a form as JSON would have them."""
    return {name: literal(value) if name in NUMBERS else value for name, value in fields.items()}


def pictures_in(files: Sequence[FormFile]) -> list[bytes]:
    """The pictures among the file parts, in their order.

    Raises:
        InvalidField: a file in another part, or more than four.
    """
    other = next((file.name for file in files if file.name != PICTURE), None)
    if other is not None:
        message = f"The file in the part {other[:60]!r} is not used; name it {PICTURES[0]}."
        raise InvalidField(message, param=other[:60])
    if len(files) > len(PICTURES):
        raise InvalidField(f"At most {len(PICTURES)} pictures are taken.", param=PICTURE)
    return [file.body for file in files]


def read_order(model: str, body: dict[str, Any], files: Sequence[bytes] = ()) -> Order:
    """The order that a call asks for; ``files`` are the pictures that came as parts of a form.

    Raises:
        BadRequest: one of its leaves, with the field at fault.
        ModelNotFound: the catalogue does not know the model.
    """
    profile = find_model(model)
    asked = read(CloudflareRun, body)
    sources = _sources(asked, files)
    if None not in (asked.steps, asked.num_steps):
        raise InvalidField("steps and num_steps are two names of one thing; give one of them.", param="num_steps")
    return Translation(
        kind=JobType.IMAGE_EDITOR if sources else JobType.IMAGE_GENERATOR,
        profile=profile,
        asked={
            "prompt": asked.prompt,
            "num_inference_steps": asked.num_steps if asked.steps is None else asked.steps,
            "guidance": asked.guidance,
            **_size(profile, asked),
            "seed": asked.seed,
            "output_format": FORMAT,
        },
        echo=body | {name: fingerprint(source) for name, source in sources.items() if isinstance(source, Inline)},
        pictures=tuple(sources.items()),
        ignored=sent(body, IGNORED),
        own={"num_inference_steps": "steps" if asked.num_steps is None else "num_steps", "images": PICTURES[0]},
    ).order()


def _size(profile: ModelProfile, asked: CloudflareRun) -> dict[str, int | None]:
    if profile in HOSTED or asked.width is not None or asked.height is not None:
        return {"width": asked.width or SIZE.width, "height": asked.height or SIZE.height}
    return {}


def _sources(asked: CloudflareRun, files: Sequence[bytes]) -> dict[str, Source]:
    found: dict[str, Source] = {name: Inline(body) for name, body in zip(PICTURES, files, strict=False)}
    if asked.image_b64 is not None:
        found["image_b64"] = read_source(f"data:image/png;base64,{asked.image_b64}", "image_b64")
    if asked.image is not None:
        if any(not 0 <= value <= 255 for value in asked.image):  # noqa: PLR2004 - a byte
            raise InvalidField("image must be the bytes of a picture's file, each 0 to 255.", param="image")
        found["image"] = Inline(bytes(asked.image))
    for name in PICTURES:
        text = getattr(asked, name)
        if text is not None:
            found[name] = read_source(text, name)
    return found


def envelope(picture: bytes) -> dict[str, Any]:
    """The reply, with the picture of the job."""
    return CloudflareEnvelope(result=CloudflarePicture(image=base64.b64encode(picture).decode("ascii"))).model_dump()
