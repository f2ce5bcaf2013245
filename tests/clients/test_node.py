"""The JavaScript clients of Replicate, Cloudflare and fal; their calls stand in ``tests/clients/node``."""

from __future__ import annotations

import base64
import io

import httpx
import pytest
from PIL import Image

from tests.clients.calls import client_call
from tests.clients.conftest import Place
from tests.clients.javascript import run

pytestmark = pytest.mark.timeout(300)  # the first of them may have to install the clients
REPLICATE, CLOUDFLARE, FAL = "replicate (Node)", "cloudflare (Node)", "@fal-ai/client (Node)"
PREDICTIONS, PROXY = "/replicate/v1/predictions", "/fal/proxy"


def size_of(body: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(body)) as image:
        image.load()
        return image.size


def fetched(url: str) -> bytes:
    return httpx.get(url, trust_env=False).content


@client_call(REPLICATE, "run(model, {input})", "POST /replicate/v1/models/{owner}/{name}/predictions")
@client_call(REPLICATE, "run(model, {input: {input_images: [Buffer]}})", "POST /replicate/v1/files")
@client_call(REPLICATE, "predictions.create({version, input})", f"POST {PREDICTIONS}")
@client_call(REPLICATE, "wait(prediction)", f"GET {PREDICTIONS}/{{id}}")
@client_call(REPLICATE, "predictions.get(id)", f"GET {PREDICTIONS}/{{id}}")
@client_call(REPLICATE, "predictions.list()", f"GET {PREDICTIONS}")
@client_call(REPLICATE, "predictions.cancel(id)", f"POST {PREDICTIONS}/{{id}}/cancel")
@client_call(REPLICATE, "webhooks.default.secret.get()", "GET /replicate/v1/webhooks/default/secret")
def test_replicate(place: Place) -> None:
    said = run("replicate.mjs", place)
    assert [size_of(fetched(url)) for url in (*said.pop("run"), *said.pop("edited"))] == [(64, 80), (64, 80)]
    assert said == {
        "waited": "succeeded",
        "got": True,
        "listed": 3,
        "canceled": "succeeded",
        "secret": True,
        "valid": True,
        "refused": 404,
    }


@client_call(CLOUDFLARE, "ai.run(model, {account_id, prompt})", "POST /client/v4/accounts/{account}/ai/run/{model}")
@client_call(CLOUDFLARE, "ai.run(model, {image_b64})", "POST /client/v4/accounts/{account}/ai/run/{model}")
def test_cloudflare(place: Place) -> None:
    said = run("cloudflare.mjs", place)
    assert [size_of(base64.b64decode(said.pop(name))) for name in ("image", "edited")] == [(64, 80), (64, 80)]
    assert said == {"refused": [400, [5007]]}


@client_call(FAL, "subscribe(endpoint, {input})", f"POST {PROXY}")
@client_call(FAL, "queue.submit(endpoint + '/edit', {input})", f"POST {PROXY}")
@client_call(FAL, "queue.streamStatus(endpoint, {requestId})", f"GET {PROXY}")
@client_call(FAL, "queue.status(endpoint, {requestId})", f"GET {PROXY}")
@client_call(FAL, "queue.result(endpoint, {requestId})", f"GET {PROXY}")
@client_call(FAL, "queue.cancel(endpoint, {requestId})", f"PUT {PROXY}")
@client_call(FAL, "run(endpoint, {input})", f"POST {PROXY}")
def test_fal(place: Place) -> None:
    said = run("fal.mjs", place)
    pictures = [said.pop(name)["images"][0] for name in ("subscribed", "result", "run")]
    assert [(one["width"], one["height"], one["content_type"]) for one in pictures] == [(64, 80, "image/png")] * 3
    bodies = [fetched(pictures[0]["url"]), fetched(pictures[1]["url"])]
    bodies.append(base64.b64decode(pictures[2]["url"].removeprefix("data:image/png;base64,")))
    assert [size_of(body) for body in bodies] == [(64, 80)] * 3
    assert said.pop("updates")[-1] == "COMPLETED"
    assert said == {
        "ids": 36,
        "streamed": "COMPLETED",
        "status": "COMPLETED",
        "late": [True, 400, "ALREADY_COMPLETED"],
        "refused": [True, 422, 1],
    }
