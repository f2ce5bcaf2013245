"""Images APIs of the OpenAI shape, each with its own fields: Lumenfall, AIgateway, Together, DeepInfra, a Fluxfarm."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping
from typing import Any, Final

from tests.stubs.fields import Check, flag, integer, number, one_of, text, texts, wrong
from tests.stubs.server import KEY, NOTHING_HERE, Answer, Asked, Job, Stub, new_id

SIZE: Final = re.compile(r"(\d{2,4})x(\d{2,4})")
JOB: Final = re.compile(r"/v1/jobs/((?:job_)?[0-9a-f]{32})(/cancel)?")


def _size(value: Any) -> bool:
    return isinstance(value, str) and SIZE.fullmatch(value) is not None


_ALL: Final[Mapping[str, Check]] = {"model": text, "prompt": text, "n": integer(1, 10)}
_SIZED: Final[Mapping[str, Check]] = {"size": _size, "response_format": one_of("url", "b64_json")}
KINDS: Final[Mapping[str, Mapping[str, Check]]] = {
    "openai": {
        **_ALL,
        **_SIZED,
        "seed": integer(0, 2**63 - 1),
        "num_inference_steps": integer(1, 50),
        "guidance": number(0, 10),
        "output_format": one_of("png", "jpeg", "webp"),
    },
    "lumenfall": {
        **_ALL,
        **_SIZED,
        "seed": integer(0, 2**32),
        "cfg_scale": number(0, 20),
        "num_inference_steps": integer(1, 50),
        "output_format": one_of("png", "jpeg", "gif", "webp", "avif"),
        "prompt_enhancement": one_of("on", "off"),
        "acceleration": text,
        "enable_safety_checker": flag,
        "disable_safety_checker": flag,
        "go_fast": flag,
    },
    "aigateway": {**_ALL, **_SIZED, "quality": text, "style": text},
    "together": {
        **_ALL,
        "width": integer(256, 2048),
        "height": integer(256, 2048),
        "steps": integer(1, 50),
        "seed": integer(0, 2**32),
        "guidance_scale": number(0, 20),
        "negative_prompt": text,
        "output_format": one_of("jpeg", "png"),
        "response_format": one_of("base64", "url"),
        "disable_safety_checker": flag,
        "reference_images": texts(4),
    },
    "deepinfra": {**_ALL, **_SIZED},
}
PART: Final = {"openai": "image[]", "lumenfall": "image", "aigateway": "image", "deepinfra": "image"}
NUMBERS: Final = {"n": int, "seed": int, "num_inference_steps": int, "guidance": float, "cfg_scale": float}
SWITCHES: Final = {"true": True, "false": False}


def failure(status: int, code: str, kind: str = "server_error", **headers: str) -> Answer:
    error = {"message": f"{code} happened", "type": kind, "param": None, "code": code}
    return Answer(status, {"error": error}, headers)


class OpenAIStub(Stub):
    """Faults after the submit: ``later`` (202), ``still-rendering`` (a 504 that names a job), ``link``, ``no-data``."""

    faults = {  # noqa: RUF012
        "busy": failure(429, "rate_limit_exceeded", "rate_limit_error", **{"retry-after": "6"}),
        "rate-limited": failure(429, "RATE_LIMITED", ""),
        "quota": failure(429, "insufficient_quota", "insufficient_quota"),
        "wallet": failure(402, "insufficient_credits", "insufficient_credits"),
        "balance": failure(402, "INSUFFICIENT_BALANCE", ""),
        "no-model": failure(404, "MODEL_NOT_FOUND", ""),
        "disabled": failure(404, "MODEL_DISABLED", ""),
        "invalid": failure(400, "INVALID_REQUEST", "invalid_request_error"),
        "exhausted": failure(502, "ALL_PROVIDERS_EXHAUSTED", ""),
        "failed": failure(500, "generation_failed"),
        "upstream": failure(500, "server_error"),
        "saturated": failure(503, "service_unavailable", "service_unavailable", **{"retry-after": "12"}),
        "moderated": failure(400, "moderation_blocked", "image_generation_user_error"),
        "flagged": Answer(400, {"error": {"message": "Your request was flagged by our safety system"}}),
        "native": Answer(500, {"detail": {"error": "it went wrong"}}),
        "canceled": failure(409, "canceled", "conflict_error"),
        "gateway-timeout": Answer(504, {"error": {"message": "upstream timed out"}}),
    }

    def __init__(self, kind: str = "openai", latency: float = 0.0) -> None:
        super().__init__(latency)
        self.name = kind

    def respond(self, asked: Asked) -> Answer:
        if asked.headers.get("authorization") != f"Bearer {KEY}":
            return failure(401, "invalid_api_key", "authentication_error")
        found = JOB.fullmatch(asked.path)
        if found:
            return self._job(found[1].removeprefix("job_"), bool(found[2]), asked)
        routes = {"/v1/images/generations": self._json, "/v1/images/edits": self._form}
        route = routes.get(asked.path)
        return route(asked) if route is not None and asked.method == "POST" else NOTHING_HERE

    def _json(self, asked: Asked) -> Answer:
        body = asked.json
        return self._run(body, len(body.get("reference_images", [])), asked)

    def _form(self, asked: Asked) -> Answer:
        pictures = [part for part in asked.parts if part.filename is not None]
        body = {part.name: _value(part.name, part.body.decode()) for part in asked.parts if part.filename is None}
        if not pictures or any(part.name != PART.get(self.name) for part in pictures):
            return self.faults["invalid"]
        return self._run(body, len(pictures), asked)

    def _run(self, body: dict[str, Any], references: int, asked: Asked) -> Answer:
        faults = self.faults_of(str(body.get("prompt")))
        if wrong(body, KINDS[self.name], ("prompt", "model")):
            return self.faults["invalid"]
        refused = self.refused(faults)
        if refused is not None:
            return refused
        sides = SIZE.fullmatch(body.get("size", f"{body.get('width', 1024)}x{body.get('height', 1024)}"))
        assert sides is not None
        job = Job(new_id(), body["model"], body, int(sides[1]), int(sides[2]), faults, body.get("n", 1), references)
        lost = self.accept(job, asked)
        if lost is not None:
            return lost
        if "later" in faults:
            return Answer(202, {"id": f"job_{job.id}", "status": "queued", "object": "job"})
        if "still-rendering" in faults:
            error = {"message": "still rendering", "type": "timeout_error", "code": "still_rendering", "job_id": job.id}
            return Answer(504, {"error": error})
        time.sleep(self.latency)
        return Answer(200, self._pictures(job, asked))

    def _pictures(self, job: Job, asked: Asked) -> dict[str, Any]:
        linked = "link" in job.faults or job.body.get("response_format") == "url"
        data: list[dict[str, Any]] = [
            {"url": f"{asked.base}/files/{job.id}-{index}.png"}
            if linked
            else {"b64_json": base64.b64encode(self.picture(job)).decode()}
            for index in range(job.n)
        ]
        reply = {"created": 1776947082, "data": [] if "no-data" in job.faults else data}
        return reply | ({"aiRecord": {"uuid": job.id, "cost": "0.25"}} if self.name == "openai" else {})

    def _job(self, name: str, cancel: bool, asked: Asked) -> Answer:
        job = self.jobs.get(name)
        if job is None:
            return NOTHING_HERE
        if cancel:
            job.canceled = "stuck" in job.faults
            return Answer(200, {"id": name}) if job.canceled else Answer(409, {"error": {"message": "it is over"}})
        state = self.poll(job)
        word = "cancelled" if job.canceled else {"waiting": "queued", "running": "running", "done": "completed"}[state]
        if "often" in job.faults and job.polls == 1:
            return Answer(304)
        url = f"{asked.base}/files/{job.id}-0.png"
        if self.name == "openai":
            return Answer(200, {"aiRecord": self._record(job, word, url)})
        broken = {"job-failed": "it went wrong", "job-moderated": "the prompt was flagged"}
        error = next((broken[fault] for fault in sorted(job.faults) if fault in broken), None)
        word = "failed" if error else word
        result = {"result": {"file_url": url}} if word == "completed" else {}
        return Answer(200, {"id": name, "status": word, "object": "job", "error": error} | result)

    def _record(self, job: Job, word: str, url: str) -> dict[str, Any]:
        """As a Fluxfarm tells of its job."""
        states = {"queued": "QUEUED", "running": "RUNNING", "completed": "SUCCESS", "cancelled": "CANCELED"}
        state, error = states[word], None
        if "job-moderated" in job.faults:
            state, error = "FAILED", {"code": "moderated", "message": "refused", "retryable": False}
        urls = [url] if state == "SUCCESS" else []
        return {"uuid": job.id, "status": state, "temporaryUrls": urls, "cost": "0.25", "error": error}


def _value(name: str, body: str) -> Any:
    """Parts are text; a number that is none stays text, and its check refuses it."""
    if body in SWITCHES:
        return SWITCHES[body]
    try:
        return NUMBERS.get(name, str)(body)
    except ValueError:
        return body
