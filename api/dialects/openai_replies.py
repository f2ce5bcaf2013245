"""What OpenAI's images calls answer, in one piece or as events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from api.dialects.openai import quality_of
from fluxfarm.airecord import AiRecord
from fluxfarm.costs import PIXELS_PER_TOKEN, REFERENCE_TOKENS, TEXT_TOKENS
from fluxfarm.jobs import JobType
from fluxfarm.request import RenderRequest
from storage.records import Job

EVENTS: Final = {JobType.IMAGE_GENERATOR: "image_generation", JobType.IMAGE_EDITOR: "image_edit"}


class InputTokens(BaseModel):
    """What was read."""

    image_tokens: int
    text_tokens: int


class Usage(BaseModel):
    """FLUX.2's own tokens: 512 of text for each image, one for 256 pixels; a reference counts as a megapixel."""

    input_tokens: int
    input_tokens_details: InputTokens
    output_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, request: RenderRequest, images: int) -> Usage:
        """Of so many images of the request."""
        text, pictures = TEXT_TOKENS * images, REFERENCE_TOKENS * len(request.references) * images
        drawn = request.size.rendered.pixels // PIXELS_PER_TOKEN * images
        return cls(
            input_tokens=text + pictures,
            input_tokens_details=InputTokens(image_tokens=pictures, text_tokens=text),
            output_tokens=drawn,
            total_tokens=text + pictures + drawn,
        )


def _is_none(value: object) -> bool:
    return value is None


class ImageData(BaseModel):
    """One picture: where it lies, or its bytes."""

    url: str | None = Field(None, exclude_if=_is_none)
    b64_json: str | None = Field(None, exclude_if=_is_none)
    revised_prompt: str | None = Field(None, exclude_if=_is_none)


class ImagesReply(BaseModel):
    """The pictures of a job, and the job itself."""

    model_config = ConfigDict(populate_by_name=True)

    created: int = Field(description="Seconds since 1970.")
    data: list[ImageData]
    size: str
    output_format: str
    quality: str
    background: str = "opaque"
    usage: Usage
    ai_record: AiRecord = Field(alias="aiRecord")


def images_reply(job: Job, record: AiRecord, pictures: Sequence[ImageData]) -> ImagesReply:
    """The reply to a call that waited for its pictures."""
    request = job.render_request
    return ImagesReply(
        created=_created(job),
        data=list(pictures),
        size=str(request.size),
        output_format=request.output_format,
        quality=quality_of(job.prompt_object.get("quality")),
        usage=Usage.of(request, request.n),
        ai_record=record,
    )


def completed_event(job: Job, b64_json: str) -> dict[str, Any]:
    """The event of one finished picture, with the usage of this one."""
    return _event(job, "completed", b64_json) | {"usage": Usage.of(job.render_request, 1).model_dump()}


def partial_event(job: Job, b64_json: str, index: int) -> dict[str, Any]:
    """The event of a preview; ``index`` counts from 0."""
    return _event(job, "partial_image", b64_json) | {"partial_image_index": index}


def _event(job: Job, kind: str, b64_json: str) -> dict[str, Any]:
    request = job.render_request
    return {
        "type": f"{EVENTS[request.type]}.{kind}",
        "b64_json": b64_json,
        "created_at": _created(job),
        "size": str(request.size),
        "quality": quality_of(job.prompt_object.get("quality")),
        "background": "opaque",
        "output_format": request.output_format,
    }


def _created(job: Job) -> int:
    return int(job.created_at.timestamp())
