"""Black Forest Labs' API: tasks live on a cluster of their own, which the reply to the submit names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tests.stubs.fields import Check, flag, integer, number, one_of, text, wrong
from tests.stubs.server import KEY, NOTHING_HERE, Answer, Asked, Job, Stub, new_id

CENTS: Final = {"flux-2-pro": (3, 1.5), "flux-2-max": (7, 3), "flux-2-flex": (5, 5), "flux-2-klein-4b": (1.4, 0.1)}
MEGAPIXEL: Final = 1024 * 1024
STATES: Final = {
    "request-moderated": "Request Moderated",
    "content-moderated": "Content Moderated",
    "failed": "Error",
    "failed-old": "Failed",
}


def _raw_base64(value: Any) -> bool:
    return isinstance(value, str) and not value.startswith("data:")


def _fields(references: int, **more: Check) -> dict[str, Check]:
    names = ["input_image", *(f"input_image_{index}" for index in range(2, references + 1))]
    return {
        "prompt": text,
        "width": integer(64, 4096),
        "height": integer(64, 4096),
        "seed": integer(0, 2**32 - 1),
        "safety_tolerance": integer(0, 5),
        "output_format": one_of("jpeg", "png"),
        "webhook_url": text,
        **dict.fromkeys(names, _raw_base64),
        **more,
    }


MODELS: Final[Mapping[str, Mapping[str, Check]]] = {
    "flux-2-pro": _fields(8, disable_pup=flag),
    "flux-2-max": _fields(8, disable_pup=flag),
    "flux-2-flex": _fields(8, prompt_upsampling=flag, steps=integer(1, 50), guidance=number(1.5, 10)),
    "flux-2-klein-4b": _fields(4),
    "flux-2-klein-9b": _fields(4),
}


class BflStub(Stub):
    """Faults after the submit: the keys of ``STATES``, ``lost``, ``thinking``, ``strange``, ``no-polling``.

    ``cluster`` is the address that polls are sent to; a poll at another one finds no task.
    """

    name = "bfl"
    faults = {  # noqa: RUF012
        "busy": Answer(429, {"detail": "Too many active tasks"}),
        "unavailable": Answer(503, {"detail": "overloaded"}, {"retry-after": "9"}),
        "internal": Answer(500, {"detail": "Internal Server Error"}),
        "credit": Answer(402, {"detail": "Insufficient credits"}),
        "key-format": Answer(422, {"detail": "Invalid API key format"}),
        "invalid": Answer(422, {"detail": [{"loc": ["body", "seed"], "msg": "Input should be valid", "type": "x"}]}),
    }

    def __init__(self, latency: float = 0.0) -> None:
        super().__init__(latency)
        self.cluster = ""

    def respond(self, asked: Asked) -> Answer:
        if asked.headers.get("x-key") != KEY or "authorization" in asked.headers:
            return Answer(403, {"detail": "Not authenticated - Invalid Authentication"})
        model = asked.path.removeprefix("/v1/")
        if asked.method == "POST" and model in MODELS:
            return self._submit(model, asked)
        if asked.method == "GET" and model == "get_result":
            return self._poll(asked)
        return NOTHING_HERE

    def _submit(self, model: str, asked: Asked) -> Answer:
        body = asked.json
        faults = self.faults_of(str(body.get("prompt")))
        bad = wrong(body, MODELS[model])
        width, height = body.get("width", 1024), body.get("height", 1024)
        bad += ["width"] if width % 16 or height % 16 or width * height > 4 * MEGAPIXEL else []
        if bad:
            return Answer(422, {"detail": [{"loc": ["body", name], "msg": "not valid", "type": "x"} for name in bad]})
        refused = self.refused(faults)
        if refused is not None:
            return refused
        references = sum(name.startswith("input_image") for name in body)
        job = Job(new_id(), model, body, width, height, faults, references=references)
        return self.accept(job, asked) or Answer(200, self._receipt(job, asked))

    def _receipt(self, job: Job, asked: Asked) -> dict[str, Any]:
        first, further = CENTS.get(job.endpoint, (1.5, 0.2))
        out = -(-job.width * job.height // MEGAPIXEL)
        cost = first + (out - 1) * further + job.references * further
        receipt = {"id": job.id, "cost": None if "unpriced" in job.faults else cost, "input_mp": 0.0, "output_mp": out}
        if "no-polling" in job.faults:
            return receipt | {"status": "Pending", "webhook_url": "https://x"}
        base = self.cluster or asked.base
        base = "https://api.bfl.ai.evil.example" if "strange-host" in job.faults else base
        return receipt | {"polling_url": f"{base}/v1/get_result?id={job.id}"}

    def _poll(self, asked: Asked) -> Answer:
        job = self.jobs.get(asked.query.get("id", ""))
        if job is None or "lost" in job.faults or (self.cluster and asked.base != self.cluster):
            return Answer(404, {"id": asked.query.get("id"), "status": "Task not found", "result": None})
        state = self.poll(job)
        if "poll-busy" in job.faults and job.polls == 1:
            return Answer(429, {"detail": "slow down"}, {"retry-after": "2"})
        if state != "done":
            return Answer(200, self._told(job, {"waiting": "Pending", "running": "Generating"}[state]))
        thinking = ("Reasoning", "Dreaming") if "strange" in job.faults else ("Reasoning",)
        if ("thinking" in job.faults or "strange" in job.faults) and job.polls <= len(thinking):
            return Answer(200, self._told(job, thinking[job.polls - 1]))
        word = next((STATES[fault] for fault in sorted(job.faults) if fault in STATES), "Ready")
        sample = {"sample": f"{asked.base}/files/{job.id}-0.png", "seed": job.body.get("seed", 42), "duration": 2.5}
        details = {"error": "the model failed"} if word in {"Error", "Failed"} else None
        return Answer(200, self._told(job, word) | {"result": sample if word == "Ready" else None, "details": details})

    def _told(self, job: Job, word: str) -> dict[str, Any]:
        return {"id": job.id, "status": word, "result": None, "progress": 0.4, "details": None, "preview": None}
