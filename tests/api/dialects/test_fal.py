"""fal's queue, by PROVIDERS' tables of fields, sizes, statuses and errors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from api.dialects.fal import SIZES, app_of, read_lane, read_order, read_patience, serves
from api.dialects.fal_errors import error_reply, failure_reply
from api.order import Inline, Linked
from fluxfarm.airecord import Problem
from fluxfarm.errors import (
    Canceled,
    DatabaseUnavailable,
    FluxfarmError,
    ForbiddenUrl,
    InternalError,
    InvalidField,
    InvalidIdempotencyKey,
    InvalidReference,
    InvalidSize,
    MalformedBody,
    ModelNotFound,
    Moderated,
    NotFound,
    PromptTooLong,
    RenderFailed,
    StillRendering,
    TooManyRequests,
    Unauthorized,
    UnknownField,
    UnreachableUrl,
)
from fluxfarm.jobs import JobState, JobType, Lane
from storage.records import Attempt, Image, Job
from storage.replies import fal
from tests.making import make_request

DEV = "fal-ai/flux-2"
PIXEL = "data:image/png;base64,iVBORw0KGgo="
UUID_ = UUID("d4e5f6a7-b8c9-0123-defa-234567890123")
MOMENT = datetime(2026, 3, 27, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("endpoint", "model", "kind"),
    [
        (DEV, "flux-2-dev", JobType.IMAGE_GENERATOR),
        (f"{DEV}/edit", "flux-2-dev", JobType.IMAGE_EDITOR),
        (f"{DEV}/klein/4b", "flux-2-klein-4b", JobType.IMAGE_GENERATOR),
        (f"{DEV}/klein/9b/edit", "flux-2-klein-9b", JobType.IMAGE_EDITOR),
        (f"{DEV}/klein/4b/base", "flux-2-klein-base-4b", JobType.IMAGE_GENERATOR),
        (f"{DEV}/klein/9b/base/edit", "flux-2-klein-base-9b", JobType.IMAGE_EDITOR),
        (f"{DEV}-flex/edit", "flux-2-flex", JobType.IMAGE_EDITOR),
        (f"{DEV}-pro", "flux-2-pro", JobType.IMAGE_GENERATOR),
        (f"{DEV}-max/edit", "flux-2-max", JobType.IMAGE_EDITOR),
        ("black-forest-labs/flux-2-dev/edit", "flux-2-dev", JobType.IMAGE_EDITOR),
    ],
)
def test_endpoints(endpoint: str, model: str, kind: JobType) -> None:
    more = {"image_urls": ["https://example.com/a.png"]} if kind is JobType.IMAGE_EDITOR else {}
    request = read_order(endpoint, {"prompt": "a fox", **more}).request
    assert (request.model, request.type) == (f"black-forest-labs/{model}", kind)
    assert serves(app_of(endpoint), request.model)


def test_a_request_lives_under_its_own_app_only() -> None:
    assert serves(DEV, "black-forest-labs/flux-2-klein-9b")
    assert not serves(f"{DEV}-pro", "black-forest-labs/flux-2-dev")
    assert not serves("fal-ai", "black-forest-labs/flux-2-dev")


@pytest.mark.parametrize(
    ("endpoint", "body", "found"),
    [
        (DEV, {}, {"width": 1024, "height": 768, "steps": 28, "guidance": 2.5, "output_format": "png", "n": 1}),
        (f"{DEV}-flex", {}, {"guidance": 3.5, "output_format": "jpeg", "width": 1024, "height": 768}),
        (f"{DEV}-pro", {"safety_tolerance": "2"}, {"output_format": "jpeg", "ignored": ("safety_tolerance",)}),
        (f"{DEV}/klein/4b/base", {"negative_prompt": ""}, {"guidance": 5.0, "ignored": ("negative_prompt",)}),
        (f"{DEV}/klein/4b", {}, {"guidance": 1.0, "steps": 4}),
        (DEV, {"image_size": {"width": 640, "height": 512}}, {"width": 640, "height": 512}),
        (DEV, {"image_size": {}}, {"width": 512, "height": 512}),
        (DEV, {"image_size": "auto"}, {"width": 1024, "height": 1024}),
        (DEV, {"num_images": 3, "seed": 2**62}, {"n": 3, "seeds": (2**62, 2**62 + 1, 2**62 + 2)}),
        (DEV, {"num_inference_steps": 9, "guidance_scale": 0}, {"steps": 9, "guidance": 0}),
        (
            DEV,
            {"acceleration": "regular", "enable_safety_checker": True, "sync_mode": False, "loras": []},
            {"acceleration": "regular", "ignored": ("enable_safety_checker",)},
        ),
        (
            DEV,
            {"num_inference_steps": 7, "acceleration": "high"},
            {"acceleration": "none", "ignored": ("acceleration",)},
        ),
        (f"{DEV}/klein/4b", {"acceleration": "high"}, {"acceleration": "none", "ignored": ("acceleration",)}),
        (f"{DEV}/klein/4b", {"acceleration": "none"}, {"acceleration": "none", "ignored": ()}),
        ("fluxfarm/flux-2-klein-small", {}, {"width": 128, "height": 128}),
    ],
)
def test_fields(endpoint: str, body: dict[str, Any], found: dict[str, Any]) -> None:
    order = read_order(endpoint, {"prompt": "a fox", **body})
    assert {name: getattr(order.request, name) for name in found} == found
    assert order.prompt_object == {"prompt": "a fox", **body}


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    request = read_order(DEV, {"prompt": "a fox", "image_size": name}).request
    assert request.size == SIZES[name]


def test_pictures() -> None:
    order = read_order(f"{DEV}/edit", {"prompt": "a fox", "image_urls": ["https://example.com/a.png", PIXEL]})
    assert order.images == (Linked("https://example.com/a.png"), Inline(b"\x89PNG\r\n\x1a\n"))
    assert order.prompt_object["image_urls"][1].startswith("data:image/png;base64,…sha256:")
    assert order.wish.width is None  # the shape is the first picture's


@pytest.mark.parametrize(
    ("endpoint", "body", "kind", "param"),
    [
        ("fal-ai/flux-1", {}, ModelNotFound, None),
        (f"{DEV}/turbo", {}, ModelNotFound, None),
        (f"{DEV}/edit", {}, InvalidField, "image_urls"),
        (DEV, {"image_urls": [PIXEL]}, InvalidField, "image_urls"),
        (f"{DEV}/edit", {"image_urls": [PIXEL, "x"]}, InvalidReference, "image_urls.1"),
        (DEV, {"image_size": "huge"}, InvalidField, "image_size"),
        (DEV, {"image_size": {"width": 8, "height": 512}}, InvalidSize, "image_size"),
        (DEV, {"image_size": {"width": "8"}}, InvalidField, "image_size.width"),
        (DEV, {"image_size": 7}, InvalidField, "image_size"),
        (DEV, {"num_inference_steps": 51}, InvalidField, "num_inference_steps"),
        (DEV, {"guidance_scale": 21}, InvalidField, "guidance_scale"),
        (DEV, {"num_images": 11}, InvalidField, "num_images"),
        (DEV, {"loras": [{"path": "https://x"}]}, InvalidField, "loras.0"),
        (DEV, {"acceleration": "warp"}, InvalidField, "acceleration"),
        (DEV, {"image_sise": "square"}, UnknownField, "image_sise"),
        (DEV, {"prompt": 7}, InvalidField, "prompt"),
    ],
)
def test_what_is_refused(endpoint: str, body: dict[str, Any], kind: type[Exception], param: str | None) -> None:
    with pytest.raises(kind) as refused:
        read_order(endpoint, {"prompt": "a fox", **body})
    assert isinstance(refused.value, FluxfarmError)
    assert refused.value.param == param
    assert "num_images" in refused.value.message or param != "num_images"


def test_headers() -> None:
    assert read_lane("low") is Lane.BULK
    assert read_lane("normal") is Lane.INTERACTIVE
    assert read_patience("", MOMENT) is None
    assert read_patience("1.5", MOMENT) == MOMENT + timedelta(seconds=1.5)
    for wrong in ("1", "0", "-5", "nan", "inf", "soon", "1e9"):
        with pytest.raises(InvalidField):
            read_patience(wrong, MOMENT)
    with pytest.raises(InvalidField):
        read_lane("urgent")


def job(status: JobState, code: str | None = None, model: str = "black-forest-labs/flux-2-dev") -> Job:
    picture = Image(n=0, object_key="t/a/0.png", width=1024, height=768, content_type="image/png", size_bytes=1_824_075)
    return Job(
        uuid=UUID_,
        model=model,
        type=JobType.IMAGE_GENERATOR,
        status=status,
        attempt=1,
        step=14,
        steps=28,
        request=make_request(model=model, seeds=(196619188014358660,), prompt="a fox").model_dump(mode="json"),
        created_at=MOMENT,
        started_at=None if status is JobState.QUEUED else MOMENT,
        finished_at=MOMENT if status.is_final else None,
        attempts=[Attempt(number=1, timings={"render": 5.1})] if status.is_final else [],
        images=[picture] if status is JobState.SUCCESS else [],
        error=None if code is None else {"code": code, "message": "It broke.", "retryable": False},
    )


URL = f"https://farm.example/fal/queue/fal-ai/flux-2/requests/{UUID_}"
URLS = {"request_id": str(UUID_), "response_url": URL, "status_url": f"{URL}/status", "cancel_url": f"{URL}/cancel"}


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (job(JobState.QUEUED), {"status": "IN_QUEUE", "queue_position": 3}),
        (job(JobState.RUNNING), {"status": "IN_PROGRESS", "logs": None}),
        (job(JobState.SUCCESS), {"status": "COMPLETED", "logs": None, "metrics": {"inference_time": 5.1}}),
        (
            job(JobState.FAILED, "render_failed"),
            {
                "status": "COMPLETED",
                "logs": None,
                "metrics": {"inference_time": 5.1},
                "error": "It broke.",
                "error_type": "runner_server_error",
            },
        ),
        (
            job(JobState.FAILED, "moderated"),
            {"status": "COMPLETED", "logs": None, "metrics": {"inference_time": 5.1}, "error": "It broke."},
        ),
    ],
)
def test_a_status(made: Job, found: dict[str, Any]) -> None:
    assert fal.request_url("https://farm.example", "fal-ai/flux-2", UUID_) == URL
    assert fal.status(made, URL, 3, logs=False) == found | URLS


def test_logs() -> None:
    told = [line["message"] for line in fal.status(job(JobState.SUCCESS), URL, None, logs=True)["logs"]]
    assert told == ["started, attempt 1", "step 14 of 28", "success"]
    assert fal.status(job(JobState.RUNNING), URL, None, logs=True)["logs"][1]["message"] == "step 14 of 28"


def test_a_result() -> None:
    assert fal.result(job(JobState.SUCCESS), ["https://a"]) == {
        "images": [
            {
                "url": "https://a",
                "width": 1024,
                "height": 768,
                "content_type": "image/png",
                "file_name": "0.png",
                "file_size": 1824075,
            }
        ],
        "seed": 196619188014358660,
        "prompt": "a fox",
        "has_nsfw_concepts": [False],
        "timings": {"inference": 5.1},
    }
    assert set(fal.result(job(JobState.SUCCESS, model="black-forest-labs/flux-2-pro"), ["https://a"])) == {
        "images",
        "seed",
    }


def test_webhooks() -> None:
    ids = {"request_id": str(UUID_), "gateway_request_id": str(UUID_)}
    done = job(JobState.SUCCESS)
    assert fal.webhook_body(done, ["u"]) == ids | {"status": "OK", "payload": fal.result(done, ["u"])}
    fault = {"detail": [{"loc": ["body", "prompt"], "msg": "It broke.", "type": "content_policy_violation"}]}
    assert fal.webhook_body(job(JobState.FAILED, "moderated"), []) == ids | {
        "status": "ERROR",
        "error": "Invalid status code: 422",
        "payload": fault,
    }


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidField("No.", param="image_size.width"), 422, "value_error"),
        (UnknownField("No.", param="promt"), 422, "extra_forbidden"),
        (InvalidReference("No.", param="image_urls.1"), 422, "image_load_error"),
        (UnreachableUrl("No."), 422, "file_download_error"),
        (ForbiddenUrl("No."), 422, "file_download_error"),
        (Moderated("No."), 422, "content_policy_violation"),
        (PromptTooLong("No."), 422, "string_too_long"),
    ],
)
def test_faults_of_the_input(error: FluxfarmError, status: int, kind: str) -> None:
    reply = error_reply(error, "id")
    (fault,) = reply.content["detail"]
    assert (reply.status, fault["msg"], fault["type"]) == (status, "No.", kind)
    if error.param == "image_urls.1":
        assert fault["loc"] == ["body", "image_urls", 1]
    assert reply.headers["X-Fal-Retryable"] == "false"


@pytest.mark.parametrize(
    ("error", "status", "error_type"),
    [
        (MalformedBody("No."), 400, "bad_request"),
        (InvalidIdempotencyKey("No."), 400, "bad_request"),
        (Unauthorized("No."), 401, None),
        (NotFound("No."), 404, None),
        (ModelNotFound("No."), 404, None),
        (TooManyRequests("No."), 429, None),
        (Canceled("No."), 499, "client_cancelled"),
        (RenderFailed("No."), 500, "runner_server_error"),
        (InternalError("No."), 500, "internal_error"),
        (DatabaseUnavailable("No."), 503, "runner_scheduling_failure"),
        (StillRendering("No."), 504, "request_timeout"),
    ],
)
def test_other_errors(error: FluxfarmError, status: int, error_type: str | None) -> None:
    reply = error_reply(error, "id")
    assert (reply.status, reply.content["detail"], reply.content.get("error_type")) == (status, "No.", error_type)
    assert reply.headers.get("X-Fal-Error-Type") == error_type
    assert reply.headers.get("X-Fal-Request-Timeout-Type") == ("user" if status == 504 else None)
    assert reply.headers["X-Fal-Retryable"] == ("true" if error.retryable else "false")


def test_a_request_that_could_not_start_in_time() -> None:
    reply = failure_reply(Problem(code="deadline", message="Too late.", retryable=True))
    assert (reply.status, reply.content["error_type"]) == (504, "request_timeout")
    assert reply.headers["X-Fal-Request-Timeout-Type"] == "user"  # its clients do not try it again
