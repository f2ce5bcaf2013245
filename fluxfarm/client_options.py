"""What may be said about a job, and the body of the call that it becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypedDict

from fluxfarm.jobs import JobType, Lane

Image = Path | bytes | str


class RenderOptions(TypedDict, total=False):
    """What may be said about a job beside its prompt; what is left out is the model's default."""

    model: str  #: slug or alias; the first one that the farm has ready when left out
    size: str  #: ``1024x768``, ``16:9`` or ``auto``
    n: int
    seed: int  #: 0 to 2**63 - 1
    steps: int
    guidance: float
    output_format: str
    output_quality: int
    images: Sequence[Image]  #: files and bytes are uploaded; reference ids, https URLs and data URIs go as they are
    lane: Lane | str
    tags: Sequence[str]
    external_id: str  #: your own name of the job; the farm refuses a second one of that name
    webhook: str  #: who is told of the job's end: an id of ``create_webhook``, or an https URL
    deadline: datetime  #: without a time zone: local time
    provider: str
    extra: Mapping[str, object]  #: more fields of promptObject


_PROMPT_FIELDS: Final = {
    "size": "size",
    "n": "n",
    "seed": "seed",
    "steps": "num_inference_steps",
    "guidance": "guidance",
    "output_format": "output_format",
    "output_quality": "output_quality",
}


def body_of(prompt: str, model: str, references: Sequence[str], options: RenderOptions) -> dict[str, Any]:
    """The body of ``POST /v1/jobs``; references make it an edit."""
    fields: dict[str, object] = {"prompt": prompt}
    fields |= {field: options.get(name) for name, field in _PROMPT_FIELDS.items() if options.get(name) is not None}
    fields |= {"images": [*references]} if references else {}
    deadline = options.get("deadline")
    body = {
        "type": JobType.IMAGE_EDITOR if references else JobType.IMAGE_GENERATOR,
        "model": model,
        "promptObject": fields | dict(options.get("extra", {})),
        "provider": options.get("provider"),
        "lane": options.get("lane"),
        "tags": [*options["tags"]] if options.get("tags") else None,
        "externalId": options.get("external_id"),
        "webhook": options.get("webhook"),
        "deadline": deadline.astimezone().isoformat() if deadline is not None else None,
    }
    return {name: value for name, value in body.items() if value is not None}
