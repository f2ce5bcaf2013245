"""A job as fal's clients know it: a request in a queue, then a result or an error; the webhook holds the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from fluxfarm.airecord import Problem, milliseconds
from fluxfarm.catalog import FLEX, MAX, PRO
from fluxfarm.errors import Canceled, Moderated, PromptTooLong, ProviderBusy, ReferenceGone
from fluxfarm.jobs import JobState
from storage.records import Job

DEADLINE: Final = "deadline"  #: the error code of a job that could not start in time
UNPROCESSABLE: Final = 422
BRIEF: Final = (FLEX.slug, PRO.slug, MAX.slug)  #: their results hold pictures and seed only
#: what a code means there: HTTP status and error_type
INFRASTRUCTURE: Final = {
    Canceled.code: (499, "client_cancelled"),
    DEADLINE: (504, "request_timeout"),
    ProviderBusy.code: (503, "runner_scheduling_failure"),
}
FAULT: Final = (500, "runner_server_error")
#: what a code means there: the field at fault and the type of the fault
INPUT: Final = {
    Moderated.code: ("prompt", "content_policy_violation"),
    PromptTooLong.code: ("prompt", "string_too_long"),
    ReferenceGone.code: ("image_urls", "file_download_error"),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """How a request ended badly; ``error_type`` is None for a fault of the input."""

    status: int
    body: dict[str, Any]
    error_type: str | None


def input_fault(field: str | None, message: str, kind: str) -> dict[str, Any]:
    """The body that says what is wrong with the input."""
    place = [int(part) if part.isdecimal() else part for part in (field or "").split(".") if part]
    return {"detail": [{"loc": ["body", *place], "msg": message, "type": kind}]}


def failure(problem: Problem) -> Failure:
    """The reply that the result of a failed request is."""
    if problem.code in INPUT:
        field, kind = INPUT[problem.code]
        return Failure(UNPROCESSABLE, input_fault(field, problem.message, kind), None)
    status, error_type = INFRASTRUCTURE.get(problem.code, FAULT)
    return Failure(status, {"detail": problem.message, "error_type": error_type}, error_type)


def request_url(base_url: str, app: str, uuid: UUID) -> str:
    """Where the request's result is read; its status and cancel are below it."""
    return f"{base_url}/fal/queue/{app}/requests/{uuid}"


def status(job: Job, url: str, position: int | None, logs: bool) -> dict[str, Any]:
    """The status of a request; ``position`` is its place in the queue, 0 is next."""
    said: dict[str, Any] = {
        "request_id": str(job.uuid),
        "response_url": url,
        "status_url": f"{url}/status",
        "cancel_url": f"{url}/cancel",
    }
    if job.status is JobState.QUEUED:
        return {"status": "IN_QUEUE", "queue_position": position or 0} | said
    lines = log_lines(job) if logs else None
    if job.status is JobState.RUNNING:
        return {"status": "IN_PROGRESS", "logs": lines} | said
    last = job.attempts[-1].timings if job.attempts else {}
    said |= {"logs": lines, "metrics": {"inference_time": last["render"]} if "render" in last else {}}
    if job.problem is not None:
        failed = failure(job.problem)
        said |= {"error": job.problem.message} | ({"error_type": failed.error_type} if failed.error_type else {})
    return {"status": "COMPLETED"} | said


def log_lines(job: Job) -> list[dict[str, str]]:
    """What happened so far: the start, the progress, the end."""
    moments: list[tuple[datetime | None, str]] = [
        (job.started_at, f"started, attempt {job.attempt}"),
        (job.started_at if job.step else None, f"step {job.step} of {job.steps}"),
        (job.finished_at, job.status.value.lower()),
    ]
    return [
        {"message": text, "level": "INFO", "source": "fluxfarm", "timestamp": milliseconds(moment)}
        for moment, text in moments
        if moment is not None
    ]


def result(job: Job, urls: Sequence[str]) -> dict[str, Any]:
    """The result of a request that succeeded; ``urls`` are its pictures', in their order."""
    found = {
        "images": [
            {
                "url": url,
                "width": image.width,
                "height": image.height,
                "content_type": image.content_type,
                "file_name": image.object_key.rpartition("/")[2],
                "file_size": image.size_bytes,
            }
            for image, url in zip(job.images, urls, strict=True)
        ],
        "seed": job.render_request.seeds[0],
    }
    if job.model in BRIEF:
        return found
    last = job.attempts[-1].timings if job.attempts else {}
    flags = [False] * len(job.images)  # with unwanted ones there would be no result
    timings = {"inference": last["render"]} if "render" in last else {}
    return found | {"prompt": job.render_request.prompt, "has_nsfw_concepts": flags, "timings": timings}


def webhook_body(job: Job, urls: Sequence[str]) -> dict[str, Any]:
    """What the webhook says of a request that is over."""
    uuid = str(job.uuid)
    body: dict[str, Any] = {"request_id": uuid, "gateway_request_id": uuid}
    if job.problem is None:
        return body | {"status": "OK", "payload": result(job, urls)}
    failed = failure(job.problem)
    error = f"Invalid status code: {failed.status}"
    return body | {"status": "ERROR", "error": error, "payload": failed.body}


def signed_message(request_id: str, user_id: str, timestamp: str, body: bytes) -> bytes:
    """What the webhook's Ed25519 signature is over."""
    return "\n".join((request_id, user_id, timestamp, hashlib.sha256(body).hexdigest())).encode()
