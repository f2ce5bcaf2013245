"""Replicate's predictions, and its files for references that are too large to go inline."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from fluxfarm.sizes import from_ratio, parse_ratio
from tests.stubs.fields import Check, flag, integer, number, one_of, text, texts, wrong
from tests.stubs.hooks import replicate_headers
from tests.stubs.server import KEY, NOTHING_HERE, Answer, Asked, Job, Stub, new_id

CREATE: Final = re.compile(r"/models/black-forest-labs/([a-z0-9-]+)/predictions")
PREDICTION: Final = re.compile(r"/predictions/([0-9a-f]{32})(/cancel)?")
RATIOS: Final = ("1:1", "16:9", "3:2", "2:3", "4:5", "5:4", "9:16", "3:4", "4:3", "match_input_image")
LARGEST_INLINE: Final = 256 * 1024

_ALL: Final[Mapping[str, Check]] = {
    "prompt": text,
    "aspect_ratio": one_of("custom", *RATIOS),
    "output_format": one_of("webp", "jpg", "png"),
    "output_quality": integer(0, 100),
    "seed": integer(0, 2**31 - 1),
}
_OPEN: Final[Mapping[str, Check]] = {"go_fast": flag, "disable_safety_checker": flag}
_HOSTED: Final[Mapping[str, Check]] = {"safety_tolerance": integer(1, 5), "resolution": text}


def _sides(low: int, high: int) -> dict[str, Check]:
    return dict.fromkeys(("width", "height"), integer(low, high))


_KLEIN: Final = {**_ALL, **_OPEN, "images": texts(5), "output_megapixels": one_of("0.25", "0.5", "1", "2", "4")}
MODELS: Final[Mapping[str, Mapping[str, Check]]] = {
    "flux-2-dev": {**_ALL, **_OPEN, **_sides(256, 1440), "input_images": texts(4)},
    "flux-2-klein-4b": _KLEIN,
    "flux-2-klein-9b": _KLEIN,
    "flux-2-klein-9b-base": {**_KLEIN, "guidance": number(1, 10)},
    "flux-2-pro": {**_ALL, **_HOSTED, **_sides(256, 2048), "input_images": texts(8)},
    "flux-2-max": {**_ALL, **_HOSTED, **_sides(256, 2048), "input_images": texts(8)},
    "flux-2-flex": {
        **_ALL,
        **_HOSTED,
        **_sides(256, 2048),
        "input_images": texts(10),
        "steps": integer(1, 50),
        "guidance": number(1.5, 10),
        "prompt_upsampling": flag,
    },
}


def problem(status: int, detail: str, **headers: str) -> Answer:
    return Answer(status, {"type": "about:blank", "title": "no", "status": status, "detail": detail}, headers)


class ReplicateStub(Stub):
    """Faults after the submit: ``early-output``, ``removed``, ``aborted``, ``failed``, ``nsfw``, ``poll-gone``."""

    name = "replicate"
    faults = {  # noqa: RUF012
        "busy": problem(429, "Request was throttled. Your rate limit resets in ~30s."),
        "busy-told": problem(429, "Request was throttled.", **{"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT"}),
        "credit": problem(402, "You have insufficient credit to run this model."),
        "no-model": Answer(404, {"detail": "The requested resource could not be found."}),
        "invalid": problem(422, "input: no good"),
        "internal": problem(500, "Internal server error"),
    }

    def __init__(self, latency: float = 0.0) -> None:
        super().__init__(latency)
        self.files: dict[str, bytes] = {}

    def respond(self, asked: Asked) -> Answer:
        if asked.headers.get("authorization") != f"Bearer {KEY}":
            return problem(401, "You did not pass a valid authentication token")
        create, found = CREATE.fullmatch(asked.path), PREDICTION.fullmatch(asked.path)
        if create and asked.method == "POST":
            return self._create(create[1], asked)
        if asked.path == "/files" and asked.method == "POST":
            return self._upload(asked)
        job = self.jobs.get(found[1]) if found else None
        if found is None or job is None or "poll-gone" in job.faults:
            return NOTHING_HERE
        if found[2]:
            return self._cancel(job, asked)
        return Answer(200, self._prediction(job, asked.base, self._state(job)))

    def webhook(self, job: Job, now: int) -> tuple[dict[str, str], bytes]:
        state = next((fault for fault in ("aborted", "failed") if fault in job.faults), "succeeded")
        body = json.dumps(self._prediction(job, job.base, state)).encode()
        return replicate_headers(f"msg_{job.id}", body, now), body

    def _create(self, model: str, asked: Asked) -> Answer:
        sent = asked.json
        body = sent.get("input", {})
        faults = self.faults_of(str(body.get("prompt")))
        fields = MODELS.get(model)
        if fields is None:
            return self.faults["no-model"]
        bad = wrong(body, fields) + [name for name in sent if name not in {"input", "webhook", "webhook_events_filter"}]
        pictures = body.get("input_images", body.get("images", []))
        bad += [name for name in ("width", "height") if name in body and body.get("aspect_ratio") != "custom"]
        bad += ["images" for uri in pictures if not uri.startswith("http") and len(uri) > LARGEST_INLINE]
        if bad:
            return problem(422, f"- input.{bad[0]} is not valid")
        refused = self.refused(faults)
        if refused is not None:
            return refused
        width, height = _drawn(body)
        job = Job(new_id(), model, body, width, height, faults, references=len(pictures), webhook=sent.get("webhook"))
        return self.accept(job, asked) or Answer(201, self._prediction(job, asked.base, "starting"))

    def _state(self, job: Job) -> str:
        state = self.poll(job)
        if job.canceled:
            return "canceled"
        if state != "done":
            return {"waiting": "starting", "running": "processing"}[state]
        return next((fault for fault in ("aborted", "failed") if fault in job.faults), "succeeded")

    def _prediction(self, job: Job, place: str, state: str) -> dict[str, Any]:
        if "nsfw" in job.faults and state == "succeeded":
            state = "failed"
        urls: Any = f"{place}/files/{job.id}-0.png"
        done = state == "succeeded" or ("early-output" in job.faults and state == "processing")
        errors = {"failed": "CUDA out of memory", "nsfw": "The input was flagged as sensitive. (E005)"}
        base = "https://replicate.evil.example" if "strange-host" in job.faults else place
        removed = "removed" in job.faults and state == "succeeded"
        return {
            "id": job.id,
            "model": f"black-forest-labs/{job.endpoint}",
            "version": "7bba46bd",
            "input": job.body,
            "output": None if removed or not done else [urls] if "klein" in job.endpoint else urls,
            "data_removed": removed,
            "error": next((errors[fault] for fault in errors if fault in job.faults and state == "failed"), None),
            "status": state,
            "metrics": {"predict_time": 5.1} if state == "succeeded" else {},
            "urls": {"get": f"{base}/predictions/{job.id}", "cancel": f"{base}/predictions/{job.id}/cancel"},
        }

    def _cancel(self, job: Job, asked: Asked) -> Answer:
        if "stuck" not in job.faults:
            return Answer(200, self._prediction(job, asked.base, "succeeded"))
        job.canceled = True
        return Answer(200, self._prediction(job, asked.base, "canceled"))

    def _upload(self, asked: Asked) -> Answer:
        part = next((part for part in asked.parts if part.name == "content"), None)
        if part is None:
            return problem(422, "content is missing")
        name = new_id()
        self.files[name] = part.body
        return Answer(201, {"id": name, "urls": {"get": f"{asked.base}/uploads/{name}"}})


def _drawn(body: Mapping[str, Any]) -> tuple[int, int]:
    """Sides are rounded to 32; without them the ratio and the area count."""
    if body.get("aspect_ratio") == "custom":
        return round(body["width"] / 32) * 32, round(body["height"] / 32) * 32
    size = from_ratio(parse_ratio(body.get("aspect_ratio", "1:1")), float(body.get("output_megapixels", 1)))
    return size.width // 16 * 16, size.height // 16 * 16
