"""Replicate's predictions, by PROVIDERS' tables of inputs, statuses and errors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from api.dialects.replicate import file_url, read_order, read_period
from api.dialects.replicate_errors import error_reply
from api.order import Inline, Linked, Uploaded
from fluxfarm.errors import (
    BadRequest,
    FluxfarmError,
    IdempotencyKeyReused,
    InvalidField,
    InvalidSize,
    MalformedBody,
    ModelNotFound,
    TooManyRequests,
    Unauthorized,
    UnknownField,
)
from fluxfarm.jobs import JobState, JobType
from fluxfarm.webhooks import Form, Moment, Telling
from storage.records import Attempt, Image, Job
from storage.replies.replicate import prediction, still_starting

BASE = "https://farm.example"
DEV, KLEIN, FLEX = (f"black-forest-labs/flux-2-{name}" for name in ("dev", "klein-4b", "flex"))
PIXEL = "data:image/png;base64,iVBORw0KGgo="
UUID_ = UUID("d4e5f6a7-b8c9-0123-defa-234567890123")


def read(model: str | None = DEV, body: dict[str, Any] | None = None, **inputs: Any) -> Any:
    return read_order({"input": {"prompt": "a fox", **inputs}, **(body or {})}, model, BASE)


@pytest.mark.parametrize(
    ("model", "inputs", "found"),
    [
        (DEV, {}, {"width": 1024, "height": 1024, "output_format": "webp", "output_quality": 80, "steps": 28}),
        (KLEIN, {}, {"output_format": "jpeg", "output_quality": 95, "steps": 4}),
        (FLEX, {}, {"steps": 30, "guidance": 4.5}),
        (FLEX, {"steps": 50, "guidance": 2}, {"steps": 50, "guidance": 2}),
        (DEV, {"steps": 12, "guidance": 2}, {"steps": 12, "guidance": 2}),
        (DEV, {"aspect_ratio": "16:9"}, {"width": 1365, "height": 768}),
        (DEV, {"aspect_ratio": "custom", "width": 800, "height": 608}, {"width": 800, "height": 608}),
        (DEV, {"width": 800, "height": 608}, {"width": 1024, "ignored": ("width", "height")}),
        (FLEX, {"resolution": "0.5 MP", "aspect_ratio": "1:1"}, {"width": 724}),
        (FLEX, {"resolution": "match_input_image"}, {"width": 1024}),
        (KLEIN, {"output_megapixels": "0.25"}, {"width": 512}),
        (DEV, {"seed": 9, "output_format": "png"}, {"seeds": (9,), "output_format": "png"}),
        (
            DEV,
            {"go_fast": True, "disable_safety_checker": False, "safety_tolerance": 2},
            {"ignored": ("go_fast", "disable_safety_checker", "safety_tolerance")},
        ),
    ],
)
def test_inputs(model: str, inputs: dict[str, Any], found: dict[str, Any]) -> None:
    request = read(model, **inputs).request
    assert {name: getattr(request, name) for name in found} == found
    assert request.type is JobType.IMAGE_GENERATOR


@pytest.mark.parametrize("field", ["input_images", "images"])
def test_references(field: str) -> None:
    uploaded = file_url(BASE, "ref_abc")
    texts = [uploaded, "https://example.com/a.png", PIXEL, PIXEL]
    order = read(DEV, None, **{field: texts})
    pixel = Inline(b"\x89PNG\r\n\x1a\n")
    assert order.images == (Uploaded("ref_abc"), Linked(texts[1]), pixel, pixel)
    assert order.request.type is JobType.IMAGE_EDITOR
    assert order.wish.aspect_ratio == "1:1"
    shown = order.prompt_object[field]
    assert shown[:2] == texts[:2]
    assert shown[2].startswith("data:image/png;base64,…sha256:")


@pytest.mark.parametrize("version", [DEV, f"{DEV}:abc", "replicate/flux.2-dev"])
def test_a_version_names_the_model(version: str) -> None:
    assert read(None, {"version": version}).request.model == DEV


@pytest.mark.parametrize(
    ("events", "moments"),
    [
        (None, (Moment.START, Moment.END)),
        (["completed"], (Moment.END,)),
        (["output"], (Moment.END,)),
        (["start"], (Moment.START,)),
        (["logs"], ()),
    ],
)
def test_webhooks(events: list[str] | None, moments: tuple[Moment, ...]) -> None:
    more = {"webhook": "https://example.com/hook"} | ({} if events is None else {"webhook_events_filter": events})
    order = read(DEV, more)
    assert (order.webhook, order.telling) == (more["webhook"], Telling(Form.REPLICATE, moments))


@pytest.mark.parametrize(
    ("model", "body", "inputs", "kind", "param"),
    [
        (None, {}, {}, InvalidField, "version"),
        (None, {"version": "a" * 64}, {}, ModelNotFound, "version"),
        ("owner/unknown", {}, {}, ModelNotFound, "model"),
        (DEV, {"webhok": "x"}, {}, UnknownField, "webhok"),
        (DEV, {"webhook_events_filter": ["done"]}, {}, InvalidField, "webhook_events_filter.0"),
        (DEV, {}, {"steps": 51}, InvalidField, "input.steps"),
        (KLEIN, {}, {"guidance": 4}, InvalidField, "input.guidance"),
        (DEV, {}, {"aspect_ratio": "custom", "width": 5}, InvalidField, "input.width"),
        (DEV, {}, {"resolution": "8 MP"}, InvalidSize, "input.aspect_ratio"),
        (DEV, {}, {"resolution": "lots"}, InvalidSize, "input.resolution"),
        (DEV, {}, {"output_megapixels": "lots"}, InvalidSize, "input.output_megapixels"),
        (DEV, {}, {"resolution": "1 MP", "output_megapixels": "1"}, InvalidField, "input.output_megapixels"),
        (DEV, {}, {"images": [PIXEL], "input_images": [PIXEL]}, InvalidField, "input.images"),
        (DEV, {}, {"input_images": ["x"]}, BadRequest, "input.input_images.0"),
        (DEV, {}, {"output_format": "jpeg"}, InvalidField, "input.output_format"),
        (DEV, {}, {"go_fast": 1}, InvalidField, "input.go_fast"),
    ],
)
def test_what_is_refused(
    model: str | None, body: dict[str, Any], inputs: dict[str, Any], kind: type[Exception], param: str
) -> None:
    with pytest.raises(kind) as refused:
        read(model, body, **inputs)
    assert isinstance(refused.value, FluxfarmError)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("text", "seconds"), [("", None), ("5s", 5), ("1m", 60), ("1h30m", 5400), ("90s", 90), ("24h", 86_400)]
)
def test_periods(text: str, seconds: int | None) -> None:
    assert read_period(text) == (None if seconds is None else timedelta(seconds=seconds))


@pytest.mark.parametrize("text", ["4s", "25h", "1", "m", "-5s", "1m1h", "soon", "1d"])
def test_what_is_no_period(text: str) -> None:
    with pytest.raises(InvalidField):
        read_period(text)


def job(status: JobState, model: str = DEV, attempt: int = 1, code: str = "render_failed", images: int = 1) -> Job:
    moment = datetime(2026, 3, 27, 10, tzinfo=UTC)
    ended = status in (JobState.FAILED, JobState.CANCELED)
    made = Attempt(number=1, model_revision="abc", timings={"render": 5.1})
    return Job(
        uuid=UUID_,
        model=model,
        type=JobType.IMAGE_GENERATOR,
        status=status,
        attempt=attempt,
        step=14,
        steps=28,
        created_at=moment,
        started_at=moment if attempt else None,
        finished_at=moment if status.is_final else None,
        prompt_object={"prompt": "a fox"},
        erased=[],
        attempts=[made] if attempt else [],
        images=[Image(n=n) for n in range(images)] if status is JobState.SUCCESS else [],
        error={"code": code, "message": "It broke.", "retryable": False} if ended else None,
    )


def test_a_prediction() -> None:
    here = f"{BASE}/replicate/v1/predictions/{UUID_}"
    assert prediction(job(JobState.SUCCESS), ["https://a"], BASE) == {
        "id": str(UUID_),
        "model": DEV,
        "version": "abc",
        "input": {"prompt": "a fox"},
        "logs": " 50%|█████     | 14/28\n",
        "output": "https://a",
        "data_removed": False,
        "error": None,
        "status": "succeeded",
        "created_at": "2026-03-27T10:00:00.000Z",
        "started_at": "2026-03-27T10:00:00.000Z",
        "completed_at": "2026-03-27T10:00:00.000Z",
        "metrics": {"predict_time": 5.1},
        "urls": {"get": here, "cancel": f"{here}/cancel"},
    }


@pytest.mark.parametrize(
    ("made", "status", "output", "error"),
    [
        (job(JobState.QUEUED, attempt=0), "starting", None, None),
        (job(JobState.RUNNING), "processing", None, None),
        (job(JobState.SUCCESS, KLEIN), "succeeded", ["u0"], None),
        (job(JobState.SUCCESS, images=2), "succeeded", ["u0", "u1"], None),
        (job(JobState.FAILED), "failed", None, "It broke."),
        (job(JobState.CANCELED, code="canceled", attempt=0), "canceled", None, "It broke."),
        (job(JobState.CANCELED, code="deadline", attempt=0), "aborted", None, "It broke."),
    ],
)
def test_states(made: Job, status: str, output: object, error: str | None) -> None:
    found = prediction(made, [f"u{image.n}" for image in made.images], BASE)
    assert (found["status"], found["output"], found["error"]) == (status, output, error)
    waited = "starting" if status == "processing" else status  # or its clients would take it for done
    assert still_starting(found)["status"] == waited


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidField("No.", param="input.seed"), 422),
        (MalformedBody("No."), 400),
        (Unauthorized("No."), 401),
        (ModelNotFound("No."), 404),
        (TooManyRequests("No."), 429),
        (IdempotencyKeyReused("No."), 422),
    ],
)
def test_errors(error: FluxfarmError, status: int) -> None:
    reply = error_reply(error, "abc")
    assert (reply.status, reply.content["status"], reply.content["detail"]) == (status, status, "No.")
    fields = [{"field": error.param, "description": "No."}] if error.param else []
    assert reply.content["invalid_fields"] == fields
