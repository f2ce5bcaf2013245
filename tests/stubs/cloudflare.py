"""Cloudflare Workers AI: multipart in, an envelope out, at once."""

from __future__ import annotations

import base64
import io
import re
import time
from collections.abc import Mapping
from typing import Any, Final

from PIL import Image

from tests.stubs.fields import Check, integer, number, text, wrong
from tests.stubs.server import KEY, Answer, Asked, Job, Stub, new_id

RUN: Final = re.compile(r"/accounts/([^/]+)/ai/run/@cf/black-forest-labs/(flux-2-[a-z0-9-]+)")
ACCOUNT: Final = "acc-1"
_ALL: Final[Mapping[str, Check]] = {
    "prompt": text,
    "width": integer(256, 1920),
    "height": integer(256, 1920),
    "seed": integer(0, 2**32 - 1),
    "guidance": number(0, 20),
}
MODELS: Final[Mapping[str, Mapping[str, Check]]] = {
    "flux-2-dev": {**_ALL, "steps": integer(1, 50)},
    "flux-2-klein-4b": _ALL,
    "flux-2-klein-9b": _ALL,
}
NUMBERS: Final = {"width": int, "height": int, "seed": int, "steps": int, "guidance": float}


def failure(status: int, code: int, message: str, **headers: str) -> Answer:
    errors = [{"code": code, "message": message}]
    return Answer(status, {"success": False, "errors": errors, "messages": [], "result": None}, headers)


class CloudflareStub(Stub):
    """Faults after the submit: ``no-image``, ``bad-image``."""

    name = "cloudflare"
    faults = {  # noqa: RUF012
        "busy": failure(429, 3040, "Capacity temporarily exceeded, please try again.", **{"retry-after": "4"}),
        "used-up": failure(429, 3036, "You have used up your daily free allocation of 10,000 neurons"),
        "quota": failure(429, 4006, "you have used up your daily free allocation"),
        "limited": Answer(429, b"error code: 1015"),
        "timed-out": failure(408, 3007, "Request timeout"),
        "aborted": failure(408, 3008, "Request was aborted"),
        "large": failure(413, 3006, "Request is too large"),
        "invalid": failure(400, 5004, "Invalid data"),
        "no-model": failure(400, 5007, "No such model"),
        "paid": failure(403, 5035, "needs Workers Paid"),
        "account": failure(403, 3041, "not allowed"),
        "nsfw": failure(400, 3030, "AiError: Input prompt contains NSFW content."),
        "failed-200": failure(200, 7000, "it went wrong"),
        "busy-200": failure(200, 3040, "Capacity temporarily exceeded"),
        "internal": failure(500, 1, "internal"),
    }

    def respond(self, asked: Asked) -> Answer:
        if asked.headers.get("authorization") != f"Bearer {KEY}":
            return failure(401, 10000, "Authentication error")
        found = RUN.fullmatch(asked.path)
        if found is None or found[1] != ACCOUNT or found[2] not in MODELS or asked.method != "POST":
            return failure(400, 7003, "Could not route to that path")
        return self._run(found[2], asked)

    def _run(self, model: str, asked: Asked) -> Answer:
        parts = asked.parts
        body: dict[str, Any] = {part.name: _value(part.name, part.body) for part in parts if part.filename is None}
        pictures = {part.name: part.body for part in parts if part.filename is not None}
        faults = self.faults_of(str(body.get("prompt")))
        names = [f"input_image_{index}" for index in range(4)]
        if not parts or wrong(body, MODELS[model]) or list(pictures) != names[: len(pictures)]:
            return failure(400, 5004, f"not valid: {wrong(body, MODELS[model]) or list(pictures)}")
        if any(max(_size(picture)) >= 512 for picture in pictures.values()):
            return failure(400, 5004, "input images must be smaller than 512x512")
        refused = self.refused(faults)
        if refused is not None:
            return refused
        job = Job(new_id(), model, body, body.get("width", 1024), body.get("height", 768), faults)
        job.references = len(pictures)
        lost = self.accept(job, asked)
        if lost is not None:
            return lost
        time.sleep(self.latency)
        image = base64.b64encode(self.picture(job)).decode()
        image = "" if "no-image" in faults else "***" if "bad-image" in faults else image
        return Answer(200, {"result": {"image": image}, "success": True, "errors": [], "messages": []})

    def picture_format(self, job: Job) -> str:  # noqa: ARG002 - always this one
        return "JPEG"


def _value(name: str, body: bytes) -> Any:
    """Parts are text; a number that is none stays text, and its check refuses it."""
    try:
        return NUMBERS.get(name, str)(body.decode())
    except ValueError:
        return body.decode()


def _size(picture: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(picture)) as opened:
        return opened.size
