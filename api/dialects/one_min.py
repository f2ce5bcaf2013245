"""1min.ai: ``POST /api/features`` in, an aiRecord out; images are edited by the path of an uploaded asset."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from pydantic import Field

from api.dialects.native import read_source
from api.dialects.translation import Translation, without_pictures
from api.order import Order, Source, Uploaded
from api.strict import Strict, read
from fluxfarm.airecord import Problem, milliseconds
from fluxfarm.catalog import DEV, find_model
from fluxfarm.errors import InvalidField
from fluxfarm.jobs import JobState, JobType
from fluxfarm.request import MAX_SEED
from storage.records import Job, Reference

GUIDANCE: Final = {DEV.slug: 3.0}  #: its documented default, where that is not the catalogue's
STATUS: Final = {
    JobState.QUEUED: "PENDING",
    JobState.RUNNING: "PROCESSING",
    JobState.SUCCESS: "SUCCESS",
    JobState.FAILED: "FAILED",
    JobState.CANCELED: "CANCELLED",
}
IMAGE: Final = "promptObject.imageUrl"
_ASSET: Final = re.compile(r"images/(ref_[0-9A-Za-z]{1,60})\.png")


class FeaturePrompt(Strict):
    """What to draw; ``megapixels`` is a text there."""

    prompt: str
    image_url: str | None = Field(None, alias="imageUrl", description="Of an IMAGE_EDITOR: the path of an asset.")
    aspect_ratio: str | None = Field(None, max_length=32)
    megapixels: str | float | None = None
    num_inference_steps: int | None = Field(None, ge=1, le=1000)
    steps: int | None = Field(None, ge=1, le=1000, description="The same, as pro, flex and max have it.")
    guidance: float | None = Field(None, ge=0, le=100)
    prompt_strength: float | None = Field(None, ge=0, le=1, description="Means nothing to FLUX.2; listed as ignored.")
    prompt_upsampling: bool | None = None
    go_fast: bool | None = Field(None, description="Listed as ignored.")
    disable_safety_checker: bool | None = Field(None, description="Listed as ignored.")
    safety_tolerance: int | None = Field(None, ge=1, le=6, description="Listed as ignored.")
    output_format: Literal["webp", "jpg", "jpeg", "png"] | None = None
    output_quality: int | None = Field(None, ge=0, le=100)
    seed: int | None = Field(None, ge=0, le=MAX_SEED)


class Feature(Strict):
    """A call of 1min.ai's feature API; the farm has its two types that draw."""

    type: Literal["IMAGE_GENERATOR", "IMAGE_EDITOR"]
    model: str = Field(min_length=1, max_length=200)
    prompt_object: FeaturePrompt = Field(alias="promptObject")


def read_order(body: dict[str, Any]) -> Order:
    """The order that a feature call asks for.

    Raises:
        BadRequest: one of its leaves, with the field at fault.
        ModelNotFound: the catalogue does not know the model.
    """
    feature = read(Feature, body)
    asked, kind = feature.prompt_object, JobType(feature.type)
    profile = find_model(feature.model)
    if kind is JobType.IMAGE_EDITOR and asked.image_url is None:
        raise InvalidField("An IMAGE_EDITOR needs imageUrl, the path of an asset.", param=IMAGE)
    source = None if asked.image_url is None else _source(asked.image_url)
    names = asked.model_dump(exclude={"image_url", "safety_tolerance", "guidance"})
    return Translation(
        kind=kind,
        profile=profile,
        asked=names | {"guidance": GUIDANCE.get(profile.slug) if asked.guidance is None else asked.guidance},
        echo=without_pictures(body["promptObject"], {} if source is None else {str(asked.image_url): source}),
        pictures=() if source is None else ((IMAGE, source),),
        ignored=() if asked.safety_tolerance is None else ("safety_tolerance",),
        own={"images": "imageUrl", "resolution": "megapixels", "size": "aspect_ratio"},
        where="promptObject.",
    ).order()


def _source(text: str) -> Source:
    asset = _ASSET.fullmatch(text)
    return read_source(text, IMAGE) if asset is None else Uploaded(asset[1])


def ai_record(job: Job, urls: list[str]) -> dict[str, Any]:
    """The reply; ``urls`` are the temporary links of the pictures. A job that is not over can be read again."""
    record: dict[str, Any] = {
        "uuid": str(job.uuid),
        "model": job.model,
        "type": job.type.value,
        "status": STATUS[job.status],
        "createdAt": milliseconds(job.created_at),
        "aiRecordDetail": {
            "promptObject": job.prompt_object,
            "resultObject": [image.object_key for image in job.images],
        },
        "temporaryUrl": urls[0] if urls else None,
    }
    if job.problem is not None and job.status.is_final:
        record["error"] = _problem(job.problem)
    return {"aiRecord": record}


def _problem(problem: Problem) -> dict[str, Any]:
    return {"code": problem.code, "message": problem.message}


def asset(reference: Reference) -> dict[str, Any]:
    """The reply to an upload; ``fileContent.path`` is what ``imageUrl`` takes. The picture is kept redrawn, as PNG."""
    name = f"{reference.id}.png"
    path = f"images/{name}"
    return {
        "asset": {
            "fieldname": "asset",
            "originalname": name,
            "encoding": "7bit",
            "mimetype": "image/png",
            "size": reference.size_bytes,
            "key": path,
            "acl": "private",
            "contentType": "image/png",
            "metadata": {},
            "location": path,
            "etag": f'"{reference.sha256}"',
        },
        "fileContent": {
            "uuid": reference.id,
            "path": path,
            "type": "png",
            "name": name,
            "createdAt": milliseconds(reference.created_at),
        },
    }
