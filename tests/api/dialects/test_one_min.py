"""1min.ai's call and reply, by the seed's own text and PROVIDERS' table of parameters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from api.dialects.one_min import ai_record, asset, read_order
from api.dialects.one_min_errors import error_reply
from api.order import Inline, Linked, Uploaded
from fluxfarm.errors import (
    BadRequest,
    InvalidField,
    InvalidSize,
    ModelNotFound,
    Moderated,
    RenderFailed,
    UnknownField,
)
from fluxfarm.jobs import JobState, JobType
from storage.records import Image, Job, Reference

DEV = "black-forest-labs/flux-2-dev"
SEED: dict[str, Any] = {
    "type": "IMAGE_GENERATOR",
    "model": DEV,
    "promptObject": {
        "prompt": "A cozy coffee shop interior in the morning, warm light, steam rising from a cup",
        "aspect_ratio": "4:5",
        "num_inference_steps": 28,
        "guidance": 3.5,
        "megapixels": "1",
        "output_format": "webp",
        "output_quality": 85,
    },
}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def asked(model: str = DEV, kind: str = "IMAGE_GENERATOR", **prompt_object: Any) -> dict[str, Any]:
    return {"type": kind, "model": model, "promptObject": {"prompt": "a fox", **prompt_object}}


def test_the_seeds_request() -> None:
    order = read_order(SEED)
    request = order.request
    assert (request.type, request.model, request.width, request.height) == (JobType.IMAGE_GENERATOR, DEV, 916, 1145)
    assert (request.steps, request.guidance, request.output_format, request.output_quality) == (28, 3.5, "webp", 85)
    assert order.prompt_object == SEED["promptObject"]
    assert request.ignored == ()


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (asked(), {"steps": 28, "guidance": 3.0, "output_format": "webp", "output_quality": 80, "width": 1024}),
        (asked(guidance=0), {"guidance": 0}),
        (asked(megapixels="0.25"), {"width": 512, "height": 512}),
        (asked(megapixels=0.25), {"width": 512, "height": 512}),
        (asked(output_format="jpg", seed=7), {"output_format": "jpeg", "seeds": (7,)}),
        (asked("black-forest-labs/flux-2-pro", steps=15), {"steps": 15, "guidance": 3.0}),
        (asked("black-forest-labs/flux-2-flex", steps=6, guidance=5), {"steps": 6, "guidance": 5}),
        (asked("black-forest-labs/flux-2-max"), {"steps": 50}),
        (asked("flux.2-dev"), {"model": DEV}),
        (
            asked(prompt_strength=0.8, go_fast=False, disable_safety_checker=True, safety_tolerance=2),
            {"ignored": ("go_fast", "disable_safety_checker", "prompt_strength", "safety_tolerance")},
        ),
    ],
)
def test_parameters(body: dict[str, Any], found: dict[str, Any]) -> None:
    request = read_order(body).request
    assert {name: getattr(request, name) for name in found} == found


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("images/ref_abc.png", Uploaded("ref_abc")),
        ("https://example.com/a.png", Linked("https://example.com/a.png")),
        (PIXEL, Inline(b"\x89PNG\r\n\x1a\n")),
    ],
)
def test_pictures_to_edit(url: str, source: object) -> None:
    order = read_order(asked(kind="IMAGE_EDITOR", imageUrl=url, aspect_ratio="match_input_image"))
    assert order.images == (source,)
    shown = order.prompt_object["imageUrl"]
    assert shown == url if url != PIXEL else shown.startswith("data:image/png;base64,…sha256:4c4b6a3be")


@pytest.mark.parametrize(
    ("body", "kind", "param"),
    [
        ({}, InvalidField, "type"),
        (asked(kind="CHAT_WITH_AI"), InvalidField, "type"),
        (asked("gpt-image"), ModelNotFound, "model"),
        (asked(kind="IMAGE_EDITOR"), InvalidField, "promptObject.imageUrl"),
        (asked(kind="IMAGE_EDITOR", imageUrl="images/2024_09_30.png"), BadRequest, "promptObject.imageUrl"),
        (asked(num_inference_steps=51), InvalidField, "promptObject.num_inference_steps"),
        (asked("black-forest-labs/flux-2-pro", steps=14), InvalidField, "promptObject.num_inference_steps"),
        (asked(guidance=10.5), InvalidField, "promptObject.guidance"),
        (asked(prompt_strength=2), InvalidField, "promptObject.prompt_strength"),
        (asked(output_quality="85"), InvalidField, "promptObject.output_quality"),
        (asked(aspect_ratio="wide"), InvalidSize, "promptObject.aspect_ratio"),
        (asked(megapixels="many"), InvalidSize, "promptObject.megapixels"),
        (asked(promt="x"), UnknownField, "promptObject.promt"),
        (asked(prompt=" "), BadRequest, "promptObject.prompt"),
    ],
)
def test_what_is_refused(body: dict[str, Any], kind: type[Exception], param: str) -> None:
    with pytest.raises(kind) as refused:
        read_order(body)
    assert isinstance(refused.value, BadRequest | ModelNotFound)
    assert refused.value.param == param


def job(status: JobState) -> Job:
    uuid = UUID("d4e5f6a7-b8c9-0123-defa-234567890123")
    image = Image(job_uuid=uuid, n=0, object_key="t/x/0.webp", content_type="image/webp")
    return Job(
        uuid=uuid,
        model=DEV,
        type=JobType.IMAGE_GENERATOR,
        status=status,
        created_at=datetime(2026, 3, 27, 10, tzinfo=UTC),
        prompt_object=SEED["promptObject"],
        images=[image] if status is JobState.SUCCESS else [],
        error={"code": "canceled", "message": "Stopped.", "retryable": False} if status is JobState.CANCELED else None,
    )


def test_the_seeds_reply() -> None:
    assert ai_record(job(JobState.SUCCESS), ["https://s3.example/x?…"]) == {
        "aiRecord": {
            "uuid": "d4e5f6a7-b8c9-0123-defa-234567890123",
            "model": "black-forest-labs/flux-2-dev",
            "type": "IMAGE_GENERATOR",
            "status": "SUCCESS",
            "createdAt": "2026-03-27T10:00:00.000Z",
            "aiRecordDetail": {"promptObject": SEED["promptObject"], "resultObject": ["t/x/0.webp"]},
            "temporaryUrl": "https://s3.example/x?…",
        }
    }


@pytest.mark.parametrize(
    ("status", "word"),
    [(JobState.QUEUED, "PENDING"), (JobState.RUNNING, "PROCESSING"), (JobState.CANCELED, "CANCELLED")],
)
def test_a_reply_without_a_picture(status: JobState, word: str) -> None:
    record = ai_record(job(status), [])["aiRecord"]
    assert (record["status"], record["temporaryUrl"]) == (word, None)
    assert record.get("error") == ({"code": "canceled", "message": "Stopped."} if word == "CANCELLED" else None)


def test_an_asset_is_named_by_its_path() -> None:
    row = Reference(id="ref_abc", size_bytes=7, sha256="0" * 64, created_at=datetime(2026, 1, 1, tzinfo=UTC))
    reply = asset(row)
    assert reply["asset"]["fieldname"] == "asset"
    assert reply["asset"]["key"] == reply["fileContent"]["path"] == "images/ref_abc.png"
    order = read_order(asked(kind="IMAGE_EDITOR", imageUrl=reply["fileContent"]["path"]))
    assert order.images == (Uploaded("ref_abc"),)


def test_errors() -> None:
    reply = error_reply(InvalidField("It is wrong.", param="promptObject.seed"), "id")
    assert (reply.status, reply.content) == (
        400,
        {"code": "invalid_field", "message": "It is wrong.", "param": "promptObject.seed"},
    )
    uuid = UUID(int=7)
    assert error_reply(Moderated("No.", job=uuid), "id").status == 400
    reply = error_reply(RenderFailed("It broke.", job=uuid), "id")
    assert (reply.status, reply.content["uuid"]) == (500, str(uuid))
