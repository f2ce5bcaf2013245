"""A job as Replicate's clients know it: a prediction; its webhooks say the same."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from fluxfarm.airecord import milliseconds
from fluxfarm.jobs import JobState
from storage.records import Job
from storage.replies.fal import DEADLINE

STATUS: Final = {
    JobState.QUEUED: "starting",
    JobState.RUNNING: "processing",
    JobState.SUCCESS: "succeeded",
    JobState.FAILED: "failed",
    JobState.CANCELED: "canceled",
}
ABORTED: Final = "aborted"  #: its time was over before it started; its Python client does not know the word
LISTS: Final = "klein"  #: models of this name give a list of pictures, the others a single one
UNSAID: Final = "hidden"  #: the version of a model that has but one
BAR: Final = 10  #: characters


def prediction(job: Job, urls: Sequence[str], base_url: str) -> dict[str, Any]:
    """The prediction; ``urls`` are its pictures', in their order."""
    here = f"{base_url}/replicate/v1/predictions/{job.uuid}"
    over = job.problem if job.status.is_final else None
    aborted = over is not None and over.code == DEADLINE and not job.attempt
    last = job.attempts[-1] if job.attempts else None
    return {
        "id": str(job.uuid),
        "model": job.model,
        "version": (last.model_revision if last else None) or UNSAID,
        "input": job.prompt_object,
        "logs": _logs(job),
        "output": _output(job, urls),
        "data_removed": "results" in job.erased,
        "error": None if over is None else over.message,
        "status": ABORTED if aborted else STATUS[job.status],
        "created_at": milliseconds(job.created_at),
        "started_at": _moment(job.started_at),
        "completed_at": _moment(job.finished_at),
        "metrics": {"predict_time": last.timings["render"]} if last and "render" in last.timings else {},
        "urls": {"get": here, "cancel": f"{here}/cancel"},
    }


def still_starting(found: dict[str, Any]) -> dict[str, Any]:
    """The reply to ``Prefer: wait``: its clients take any word but ``starting`` for an end of the wait."""
    return found | {"status": STATUS[JobState.QUEUED]} if found["status"] == STATUS[JobState.RUNNING] else found


def _output(job: Job, urls: Sequence[str]) -> str | list[str] | None:
    if not urls:
        return None
    return list(urls) if LISTS in job.model or len(urls) > 1 else urls[0]


def _logs(job: Job) -> str:
    """The progress as its clients parse it, which is tqdm's form."""
    if not job.attempt or not job.steps:
        return ""
    done = BAR * job.step // job.steps
    return f"{100 * job.step // job.steps:3d}%|{'█' * done}{' ' * (BAR - done)}| {job.step}/{job.steps}\n"


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else milliseconds(moment)
