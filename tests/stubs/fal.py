"""fal's queue: submit at the full id, everything else below ``owner/app``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from tests.stubs.fields import Check, flag, integer, number, one_of, text, texts, wrong
from tests.stubs.hooks import fal_headers, fal_jwks
from tests.stubs.server import KEY, NOTHING_HERE, Answer, Asked, Job, Stub, new_id

OWNER_APPS: Final = ("fal-ai/flux-2", "fal-ai/flux-2-flex", "fal-ai/flux-2-pro", "fal-ai/flux-2-max")
REQUEST: Final = re.compile(r"/(fal-ai/flux-2[a-z-]*)/requests/([0-9a-f]{32})(/status|/cancel)?")
HUGE_SEED: Final = 196_619_188_014_358_660  #: beyond 2^53, as in fal's own samples


def _size(value: Any) -> bool:
    sides = integer(512, 2048)
    return isinstance(value, dict) and set(value) == {"width", "height"} and all(map(sides, value.values()))


_ALL: Final[Mapping[str, Check]] = {
    "prompt": text,
    "image_size": _size,
    "seed": integer(0, 2**63 - 1),
    "sync_mode": flag,
    "enable_safety_checker": flag,
    "output_format": one_of("png", "jpeg"),
}
_OPEN: Final[Mapping[str, Check]] = {"num_images": integer(1, 4), "output_format": one_of("png", "jpeg", "webp")}
_TUNED: Final[Mapping[str, Check]] = {"num_inference_steps": integer(1, 50), "guidance_scale": number(1, 20)}
_DEV: Final[Mapping[str, Check]] = {
    "acceleration": one_of("none", "regular", "high"),
    "enable_prompt_expansion": flag,
}
_HOSTED: Final[Mapping[str, Check]] = {"safety_tolerance": one_of("1", "2", "3", "4", "5")}
_KLEIN: Final[Mapping[str, Check]] = {"num_inference_steps": integer(4, 8)}

ENDPOINTS: Final[Mapping[str, Mapping[str, Check]]] = {
    "fal-ai/flux-2": {**_ALL, **_OPEN, **_TUNED, **_DEV},
    "fal-ai/flux-2/klein/4b": {**_ALL, **_OPEN, **_KLEIN},
    "fal-ai/flux-2/klein/9b": {**_ALL, **_OPEN, **_KLEIN},
    "fal-ai/flux-2/klein/4b/base": {**_ALL, **_OPEN, **_TUNED, "negative_prompt": text, "acceleration": text},
    "fal-ai/flux-2-flex": {**_ALL, **_TUNED, **_HOSTED},
    "fal-ai/flux-2-pro": {**_ALL, **_HOSTED},
    "fal-ai/flux-2-max": {**_ALL, **_HOSTED},
}


def infrastructure(status: int, kind: str, **headers: str) -> Answer:
    return Answer(status, {"detail": f"{kind} happened", "error_type": kind}, {"x-fal-error-type": kind, **headers})


def model_error(kind: str, status: int = 422, **headers: str) -> Answer:
    item = {"loc": ["body", "prompt"], "msg": "no good", "type": kind, "input": {"prompt": "secret prompt"}}
    return Answer(status, {"detail": [item]}, headers)


class FalStub(Stub):
    """Faults after the submit: ``failed-*`` in the status, ``result-*`` in the result, ``nsfw``, ``strange-host``."""

    name = "fal"
    faults = {  # noqa: RUF012
        "busy": Answer(429, {"detail": "slow down"}, {"retry-after": "7"}),
        "no-runner": infrastructure(503, "runner_scheduling_failure"),
        "timeout": infrastructure(504, "request_timeout"),
        "user-timeout": infrastructure(504, "request_timeout", **{"x-fal-request-timeout-type": "user"}),
        "internal": infrastructure(500, "internal_error"),
        "bad-request": infrastructure(400, "bad_request"),
        "locked": Answer(403, {"detail": "User is locked. Reason: Exhausted balance."}),
        "moderated": model_error("content_policy_violation"),
        "invalid": model_error("value_error"),
        "invalid-text": Answer(422, {"detail": "the input is not valid"}),
    }

    def respond(self, asked: Asked) -> Answer:
        if asked.path == "/.well-known/jwks.json":
            return Answer(200, fal_jwks())
        if asked.headers.get("authorization") != f"Key {KEY}":
            return Answer(401, {"detail": "Cannot access application: invalid key"})
        found = REQUEST.fullmatch(asked.path)
        if found is None:
            return self._submit(asked) if asked.method == "POST" else NOTHING_HERE
        job = self.jobs.get(found[2])
        if job is None or found[1] != "/".join(job.endpoint.split("/")[:2]):
            return NOTHING_HERE
        steps = {("GET", "/status"): self._status, ("GET", None): self._result, ("PUT", "/cancel"): self._cancel}
        step = steps.get((asked.method, found[3]))
        return Answer(405, {"detail": "Method Not Allowed"}) if step is None else step(job, asked)

    def webhook(self, job: Job, now: int) -> tuple[dict[str, str], bytes]:
        bad = any(fault.startswith(("failed-", "result-")) for fault in job.faults)
        told = {"request_id": job.id, "gateway_request_id": job.id, "status": "ERROR" if bad else "OK"}
        payload = {"images": [_image(job, job.base, index) for index in range(job.n)], "seed": job.seed}
        body = json.dumps(told | {"payload": {"detail": []} if bad else payload}).encode()
        return fal_headers(job.id, body, now), body

    def _submit(self, asked: Asked) -> Answer:
        endpoint = asked.path.strip("/")
        fields = ENDPOINTS.get(endpoint.removesuffix("/edit"))
        if fields is None:
            return NOTHING_HERE
        body = asked.json
        edits = endpoint.endswith("/edit")
        allowed = {**fields, "image_urls": texts(10)} if edits else fields
        faults = self.faults_of(str(body.get("prompt")))
        bad = wrong(body, allowed, ("prompt", "image_urls") if edits else ("prompt",))
        if bad:
            return Answer(422, {"detail": [{"loc": ["body", name], "msg": "not valid", "type": "x"} for name in bad]})
        refused = self.refused(faults)
        if refused is not None:
            return refused
        size = body.get("image_size", {"width": 1024, "height": 768})
        job = Job(new_id(), endpoint, body, size["width"], size["height"], faults, body.get("num_images", 1))
        job.references, job.webhook = len(body.get("image_urls", [])), asked.query.get("fal_webhook")
        return self.accept(job, asked) or Answer(200, _receipt(job, asked))

    def _status(self, job: Job, _asked: Asked) -> Answer:
        if "poll-busy" in job.faults and job.polls == 0:
            job.polls += 1
            return Answer(503, b"<html>", {"retry-after": "3"})
        state = self.poll(job)
        if job.canceled:
            return Answer(200, {"status": "COMPLETED", "error": "canceled", "error_type": "client_cancelled"})
        if state != "done":
            word = {"waiting": "IN_QUEUE", "running": "IN_PROGRESS"}[state]
            return Answer(202, {"status": word, "queue_position": 0})
        failed = next((fault for fault in sorted(job.faults) if fault.startswith("failed-")), None)
        done: dict[str, Any] = {"status": "COMPLETED", "logs": [], "metrics": {"inference_time": 1.5}}
        if failed == "failed-text" or "result-moderated" in job.faults:
            done |= {"error": "Invalid status code: 422"}
        elif failed:
            done |= {"error": "it went wrong", "error_type": failed.removeprefix("failed-").replace("-", "_")}
        return Answer(200, done)

    def _result(self, job: Job, asked: Asked) -> Answer:
        results = {
            "result-moderated": model_error("content_policy_violation"),
            "result-invalid": model_error("value_error"),
            "result-retryable": model_error("model_error", 500, **{"x-fal-retryable": "true"}),
            "result-text": Answer(422, {"detail": "not valid after all"}),
            "result-busy": Answer(502, b"<html>nginx</html>"),
            "result-gone": NOTHING_HERE,
            "result-empty": Answer(200, {"images": []}),
            "failed-text": Answer(422, {"detail": "it went wrong"}),
        }
        bad = next((results[fault] for fault in sorted(job.faults) if fault in results), None)
        if bad is not None:
            return bad
        seed = job.body.get("seed", HUGE_SEED)
        images = [_image(job, asked.base, index) for index in range(job.n)]
        flags = ["nsfw" in job.faults] * job.n
        return Answer(200, {"images": images, "seed": seed, "has_nsfw_concepts": flags, "timings": {}})

    def _cancel(self, job: Job, _asked: Asked) -> Answer:
        if "gone" in job.faults:
            return Answer(404, {"status": "NOT_FOUND"})
        if "stuck" not in job.faults:
            return Answer(400, {"status": "ALREADY_COMPLETED"})
        job.canceled = True
        word = "OK" if job.polls == 0 else "CANCELLATION_REQUESTED"
        return Answer(200 if word == "OK" else 202, {"status": word})


def _receipt(job: Job, asked: Asked) -> dict[str, Any]:
    owner = "/".join(job.endpoint.split("/")[:2])
    base = "https://queue.fal.run.evil.example" if "strange-host" in job.faults else asked.base
    url = f"{base}/{owner}/requests/{job.id}"
    urls = {"status_url": f"{url}/status", "response_url": url, "cancel_url": f"{url}/cancel"}
    receipt = {"status": "IN_QUEUE", "request_id": job.id, "queue_position": 0}
    return receipt if "no-urls" in job.faults else receipt | urls


def _image(job: Job, base: str, index: int) -> dict[str, Any]:
    return {
        "url": f"{base}/files/{job.id}-{index}.png",
        "width": job.width,
        "height": job.height,
        "content_type": "image/png",
    }
