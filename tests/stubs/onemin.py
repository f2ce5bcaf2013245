"""1min.ai: assets and features."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from fluxfarm.sizes import from_ratio, parse_ratio
from tests.stubs.fields import Check, flag, integer, number, one_of, text, wrong
from tests.stubs.server import KEY, NOTHING_HERE, Answer, Asked, Job, Stub, new_id

RATIOS: Final = ("1:1", "16:9", "9:16", "3:2", "2:3", "4:5", "5:4", "match_input_image")
EXACT: Final = 2**53  #: JavaScript knows no larger whole numbers
_ALL: Final[Mapping[str, Check]] = {
    "prompt": text,
    "aspect_ratio": one_of(*RATIOS),
    "output_quality": integer(0, 100),
    "seed": integer(0, EXACT),
}
_HOSTED: Final[Mapping[str, Check]] = {
    **_ALL,
    "output_format": one_of("png", "jpg"),
    "guidance": number(2, 5),
    "safety_tolerance": integer(1, 6),
    "prompt_upsampling": flag,
}
MODELS: Final[Mapping[str, Mapping[str, Check]]] = {
    "black-forest-labs/flux-2-dev": {
        **_ALL,
        "output_format": one_of("webp", "jpg", "png"),
        "num_inference_steps": integer(1, 50),
        "guidance": number(0, 10),
        "prompt_strength": number(0, 1),
        "megapixels": one_of("0.25", "1"),
        "go_fast": flag,
        "disable_safety_checker": flag,
    },
    "black-forest-labs/flux-2-pro": {**_HOSTED, "steps": integer(15, 50)},
    "black-forest-labs/flux-2-flex": {**_HOSTED, "steps": integer(6, 50)},
    "black-forest-labs/flux-2-max": {**_HOSTED, "steps": integer(15, 50)},
}


class OneminStub(Stub):
    """Faults after the submit: ``failed``, ``odd``, ``no-url``, ``url-outside``."""

    name = "onemin"
    faults = {  # noqa: RUF012
        "busy": Answer(429, {"message": "Too Many Requests"}, {"retry-after": "11"}),
        "credit": Answer(402, {"message": "Insufficient credits"}),
        "invalid": Answer(400, {"message": "promptObject is not valid"}),
        "nsfw": Answer(400, {"message": "The prompt was flagged by moderation"}),
        "internal": Answer(500, {"message": "Internal server error"}),
    }

    def __init__(self, latency: float = 0.0) -> None:
        super().__init__(latency)
        self.assets: dict[str, bytes] = {}

    def respond(self, asked: Asked) -> Answer:
        if asked.headers.get("api-key") != KEY:
            return Answer(401, {"message": "Unauthorized"})
        routes = {"/api/assets": self._upload, "/api/features": self._run}
        route = routes.get(asked.path)
        return route(asked) if route is not None and asked.method == "POST" else NOTHING_HERE

    def _upload(self, asked: Asked) -> Answer:
        part = next((part for part in asked.parts if part.name == "asset"), None)
        if part is None:
            return Answer(400, {"message": "asset is missing"})
        path = f"images/2026_03_27_10_00_00_001_{new_id()}.png"
        self.assets[path] = part.body
        return Answer(200, {"asset": {"fieldname": "asset", "key": path}, "fileContent": {"path": path}})

    def _run(self, asked: Asked) -> Answer:
        sent = asked.json
        body = sent.get("promptObject", {})
        faults = self.faults_of(str(body.get("prompt")))
        fields = MODELS.get(sent.get("model", ""))
        edits = sent.get("type") == "IMAGE_EDITOR"
        if fields is None or set(sent) != {"type", "model", "promptObject"}:
            return self.faults["invalid"]
        allowed = {**fields, "imageUrl": one_of(*self.assets)} if edits else fields
        if wrong(body, allowed, ("prompt", "imageUrl") if edits else ("prompt",)):
            return self.faults["invalid"]
        refused = self.refused(faults)
        if refused is not None:
            return refused
        size = from_ratio(parse_ratio(body.get("aspect_ratio", "1:1")), float(body.get("megapixels", "1")))
        job = Job(new_id(), sent["model"], body, size.width // 16 * 16, size.height // 16 * 16, faults)
        job.references = int(edits)
        lost = self.accept(job, asked)
        if lost is not None:
            return lost
        time.sleep(self.latency)
        return Answer(200, self._record(job, sent["type"], asked))

    def _record(self, job: Job, kind: str, asked: Asked) -> dict[str, Any]:
        detail = {"promptObject": job.body, "resultObject": [f"development/images/{job.id}.png"]}
        states = {"failed": "FAILED", "odd": "PROCESSING"}
        status = next((state for fault, state in states.items() if fault in job.faults), "SUCCESS")
        record: dict[str, Any] = {"uuid": job.id, "model": job.endpoint, "type": kind, "status": status}
        record |= {"createdAt": "2026-03-27T10:00:00.000Z", "aiRecordDetail": detail}
        url = {"temporaryUrl": f"{asked.base}/files/{job.id}-0.png"}
        if "no-url" in job.faults:
            return {"aiRecord": record}
        return {"aiRecord": record} | url if "url-outside" in job.faults else {"aiRecord": record | url}
