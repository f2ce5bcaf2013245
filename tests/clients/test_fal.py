"""fal's Python client, with nothing changed but its hosts and key; its calls stand in ``fal_calls``."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from tests.api.samples import picture
from tests.clients.calls import client_call
from tests.clients.conftest import Place
from tests.clients.tls import HOST, certificate, in_front_of
from tests.conftest import ROOT
from tests.making import MODEL

PYTHON = "fal_client (Python)"
SUBMIT = "POST /fal/queue/{endpoint}"
REQUEST = "/fal/queue/{owner}/{app}/requests/{id}"


def calls(name: str, place: Place, folder: Path) -> dict[str, Any]:
    pem = certificate(folder)
    with in_front_of(int(place.url.rpartition(":")[2]), pem) as port:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "FAL_KEY": place.key,
            "FAL_RUN_HOST": f"{HOST}:{port}/fal/run",
            "FAL_QUEUE_RUN_HOST": f"{HOST}:{port}/fal/queue",
            "SSL_CERT_FILE": str(pem),
            "MODEL": MODEL,
            "PICTURE": f"data:image/png;base64,{base64.b64encode(picture()).decode()}",
            "CALLS": name,
        }
        done = subprocess.run(
            [sys.executable, "-m", "tests.clients.fal_calls"],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=90,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def size_of(url: str) -> tuple[int, int]:
    prefix = "data:image/png;base64,"
    body = (
        base64.b64decode(url.removeprefix(prefix))
        if url.startswith(prefix)
        else httpx.get(url, trust_env=False).content
    )
    with Image.open(io.BytesIO(body)) as image:
        image.load()
        return image.size


@client_call(PYTHON, "subscribe(endpoint, arguments)", SUBMIT)
@client_call(PYTHON, "submit(endpoint + '/edit', arguments).get()", SUBMIT)
@client_call(PYTHON, "status(endpoint, request_id)", f"GET {REQUEST}/status")
@client_call(PYTHON, "result(endpoint, request_id)", f"GET {REQUEST}")
@client_call(PYTHON, "run(endpoint, arguments)", "POST /fal/run/{endpoint}")
@client_call(PYTHON, "AsyncClient().subscribe(endpoint, arguments)", SUBMIT)
def test_pictures(place: Place, tmp_path: Path) -> None:
    said = calls("rendered", place, tmp_path)
    assert said["submitted"] == said["result"] | {"images": said["submitted"]["images"]}
    for name in ("subscribed", "submitted", "result", "run", "async"):
        (image,) = said.pop(name)["images"]
        assert size_of(image["url"]) == (64, 80), name
    assert said == {"last": "Completed", "status": "Completed"}


@client_call(PYTHON, "submit(endpoint, arguments, start_timeout=60)", SUBMIT)
@client_call(PYTHON, "cancel(endpoint, request_id)", f"PUT {REQUEST}/cancel")
def test_requests_that_have_no_picture(idle: Place, tmp_path: Path) -> None:
    assert calls("waiting", idle, tmp_path) == {
        "status": "Queued",
        "position": 1,
        "canceled": ["Completed", "client_cancelled"],
        "late": [400, None],
        "gone": [499, "client_cancelled"],
        "elsewhere": [404, None],
        "unknown": [404, None],
        "invalid": [422, None],
    }


def test_a_result_that_is_not_there_yet_and_the_public_keys(idle: Place) -> None:
    with httpx.Client(base_url=idle.url, headers={"Authorization": f"Key {idle.key}"}, trust_env=False) as client:
        asked = {"prompt": "a fox", "image_size": {"width": 64, "height": 64}}
        key = {"Idempotency-Key": "one"}
        made, again = (client.post(f"/fal/queue/{MODEL}", json=asked, headers=key).json() for _ in range(2))
        assert (made["status"], made["request_id"]) == ("IN_QUEUE", again["request_id"])
        reply = client.get(made["response_url"])
        assert (reply.status_code, reply.json()) == (400, {"detail": "Request is still in progress"})
        assert reply.headers["x-fal-request-id"] == made["request_id"]
        assert client.get(made["status_url"]).status_code == 202
        assert client.post("/fal/proxy", headers={"x-fal-target-url": "https://rest.fal.ai/storage"}).status_code == 422
        (public,) = httpx.get(f"{idle.url}/.well-known/jwks.json", trust_env=False).json()["keys"]
        assert (public["kty"], public["crv"]) == ("OKP", "Ed25519")
