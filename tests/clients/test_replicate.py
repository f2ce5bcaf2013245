"""Replicate's Python client, with nothing changed but its base URL and token."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from replicate.client import Client
from replicate.exceptions import ReplicateError

from tests.api.samples import picture
from tests.clients.calls import client_call
from tests.clients.conftest import Place
from tests.making import MODEL

PYTHON = "replicate (Python)"
CREATE = "POST /replicate/v1/models/{owner}/{name}/predictions"
ASKED: dict[str, Any] = {"prompt": "a fox", "aspect_ratio": "custom", "width": 64, "height": 80, "steps": 2}


def connect(place: Place, **changes: Any) -> Client:
    made = Client(api_token=changes.pop("api_token", place.key), base_url=f"{place.url}/replicate")
    made.poll_interval = 0.05
    return made


@pytest.fixture
def client(place: Place) -> Iterator[Client]:
    made = connect(place)
    yield made
    made._client.close()


@pytest.fixture
def waiting(idle: Place) -> Iterator[Client]:
    """Of a farm whose workers are away."""
    made = connect(idle)
    yield made
    made._client.close()


def opened(url: str) -> Image.Image:
    with Image.open(io.BytesIO(httpx.get(url, trust_env=False).content)) as image:
        image.load()
        return image


@client_call(PYTHON, "run(model, input=…)", CREATE)
def test_a_run_gives_the_picture(client: Client) -> None:
    (url,) = client.run(MODEL, input=ASKED)
    assert opened(str(url)).size == (64, 80)


@client_call(PYTHON, "run(model, input={input_images: [file]})", "POST /replicate/v1/files")
def test_files_are_uploaded_and_edited(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "source.png"
    path.write_bytes(picture())
    with path.open("rb") as file:
        (url,) = client.run(MODEL, input={"prompt": "dusk", "steps": 1, "input_images": [file], **size(64)})
    assert opened(str(url)).size == (64, 64)
    prediction = next(iter(client.predictions.list()))
    assert prediction.input is not None
    (uploaded,) = prediction.input["input_images"]
    found = client._client.get(uploaded).json()
    assert (found["content_type"], found["urls"]["get"]) == ("image/png", uploaded)


def size(side: int) -> dict[str, Any]:
    return {"aspect_ratio": "custom", "width": side, "height": side}


@client_call(PYTHON, "predictions.create(model=…, file_encoding_strategy='base64')", CREATE)
@client_call(PYTHON, "prediction.wait()", "GET /replicate/v1/predictions/{id}")
def test_a_file_in_the_body(client: Client) -> None:
    made = client.predictions.create(
        model=MODEL,
        input={"prompt": "dusk", "steps": 1, "images": [io.BytesIO(picture())], **size(64)},
        file_encoding_strategy="base64",
    )
    made.wait()
    assert (made.status, made.error) == ("succeeded", None)
    assert made.output is not None
    assert len(made.output) == 1


@client_call(PYTHON, "predictions.create(version=…)", "POST /replicate/v1/predictions")
@client_call(PYTHON, "predictions.get(id)", "GET /replicate/v1/predictions/{id}")
def test_a_prediction_in_its_own_time(client: Client) -> None:
    made = client.predictions.create(version=MODEL, input=ASKED | {"seed": 7, "output_format": "png"})
    assert made.status in {"starting", "processing", "succeeded"}
    made.wait()
    found = client.predictions.get(made.id)
    assert (found.status, found.model, found.input) == ("succeeded", MODEL, made.input)
    assert found.metrics is not None
    assert found.metrics["predict_time"] > 0
    assert found.progress is not None
    assert (found.progress.current, found.progress.total, found.progress.percentage) == (2, 2, 1.0)
    assert found.output is not None
    assert opened(found.output[0]).format == "PNG"


@client_call(PYTHON, "async_run(model, input=…)", CREATE)
def test_the_asynchronous_client(place: Place) -> None:
    async def run() -> Any:
        made = connect(place)
        async with made._async_client:
            return await made.async_run(MODEL, input=ASKED)

    (url,) = asyncio.run(run())
    assert opened(str(url)).size == (64, 80)


@client_call(PYTHON, "predictions.cancel(id)", "POST /replicate/v1/predictions/{id}/cancel")
@client_call(PYTHON, "predictions.list()", "GET /replicate/v1/predictions")
def test_a_prediction_is_cancelled(waiting: Client) -> None:
    made = waiting.predictions.create(version=MODEL, input=ASKED)
    assert waiting.predictions.get(made.id).status == "starting"
    made.cancel()
    assert made.status == "canceled"
    assert waiting.predictions.cancel(made.id).status == "canceled"
    (listed,) = waiting.predictions.list()
    assert (listed.id, listed.status, listed.output) == (made.id, "canceled", None)


@client_call(PYTHON, "predictions.create(…, wait=2)", "POST /replicate/v1/predictions")
def test_a_wait_that_is_over_first(waiting: Client, idle: Place) -> None:
    made = waiting.predictions.create(version=MODEL, input=ASKED, wait=2)
    assert made.status == "starting"  # the word that makes run() go on asking
    reply = waiting._client.post(
        f"{idle.url}/replicate/v1/predictions",
        json={"version": MODEL, "input": ASKED},
        headers={"Prefer": "wait=1", "Cancel-After": "90s"},
        timeout=20,
    )
    assert (reply.status_code, reply.headers["preference-applied"]) == (201, "wait=1")


@client_call(PYTHON, "webhooks.default.secret()", "GET /replicate/v1/webhooks/default/secret")
def test_the_default_secret_stays(waiting: Client) -> None:
    first, again = waiting.webhooks.default.secret(), waiting.webhooks.default.secret()
    assert first.key == again.key
    assert first.key.startswith("whsec_")


@pytest.mark.parametrize(
    ("model", "asked", "status", "words"),
    [
        ("owner/nobody", ASKED, 404, "no model"),
        (MODEL, ASKED | {"steps": 0}, 422, "steps"),
        (MODEL, ASKED | {"promt": "x"}, 422, "promt"),
        (MODEL, {"prompt": ""}, 422, "empty"),
        ("black-forest-labs/flux-2-pro", {"prompt": "x"}, 422, "remote"),
    ],
)
def test_errors(waiting: Client, model: str, asked: dict[str, Any], status: int, words: str) -> None:
    with pytest.raises(ReplicateError) as refused:
        waiting.run(model, input=asked)
    assert refused.value.status == status
    assert words in (refused.value.detail or "")


def test_a_wrong_token(idle: Place) -> None:
    stranger = connect(idle, api_token="r8_nobody")
    with stranger._client, pytest.raises(ReplicateError) as refused:
        stranger.run(MODEL, input=ASKED)
    assert refused.value.status == 401


def test_an_idempotency_key_makes_one_prediction(waiting: Client, idle: Place) -> None:
    def create(**inputs: Any) -> httpx.Response:
        return waiting._client.post(
            f"{idle.url}/replicate/v1/predictions",
            json={"version": MODEL, "input": ASKED | inputs},
            headers={"Idempotency-Key": "one"},
        )

    first, again, other = create(), create(), create(steps=3)
    assert first.json()["id"] == again.json()["id"]
    assert (again.headers["idempotency-replayed"], other.status_code) == ("true", 422)
