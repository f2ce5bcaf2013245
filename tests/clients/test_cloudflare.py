"""Cloudflare's Python SDK, with nothing changed but its base URL and token, and the call as its samples make it."""

from __future__ import annotations

import base64
import io
import subprocess
from collections.abc import Iterator
from typing import Any

import cloudflare
import httpx
import pytest
from cloudflare import Cloudflare
from PIL import Image

from tests.api.samples import picture
from tests.clients.calls import client_call
from tests.clients.conftest import Place
from tests.making import MODEL

PYTHON = "cloudflare (Python)"
RUN = "POST /client/v4/accounts/{account}/ai/run/{model}"
ASKED: dict[str, Any] = {"account_id": "023e105f4ecef8ad9ca31a8372d0c353", "prompt": "a fox", "width": 64, "height": 80}


def connect(place: Place, **changes: Any) -> Cloudflare:
    return Cloudflare(
        api_token=changes.pop("api_token", place.key), base_url=f"{place.url}/client/v4", max_retries=0, **changes
    )


@pytest.fixture
def client(place: Place) -> Iterator[Cloudflare]:
    with connect(place) as made:
        yield made


@pytest.fixture
def waiting(idle: Place) -> Iterator[Cloudflare]:
    with connect(idle) as made:
        yield made


def opened(text: str) -> Image.Image:
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        image.load()
        return image


@client_call(PYTHON, "ai.run(model, account_id=…, prompt=…)", RUN)
def test_a_prompt(client: Cloudflare) -> None:
    found: Any = client.ai.run(MODEL, num_steps=2, guidance=3, seed=7, **ASKED)
    image = opened(found["image"])
    assert (image.format, image.size) == ("JPEG", (64, 80))


@client_call(PYTHON, "ai.run(model, account_id=…, prompt=…, image_b64=…)", RUN)
def test_a_picture_to_edit(client: Cloudflare) -> None:
    found: Any = client.ai.run(MODEL, num_steps=1, image_b64=base64.b64encode(picture()).decode(), **ASKED)
    assert opened(found["image"]).size == (64, 80)


@client_call(PYTHON, "ai.run(model, account_id=…, prompt=…, image=[…])", RUN)
def test_the_bytes_of_a_picture(client: Cloudflare) -> None:
    found: Any = client.ai.run(MODEL, num_steps=1, image=list(picture()), **ASKED)
    assert opened(found["image"]).size == (64, 80)


def test_a_form_with_pictures(place: Place, tmp_path: Any) -> None:
    for index in (0, 1):
        (tmp_path / f"{index}.png").write_bytes(picture(64, 64))
    reply = subprocess.run(
        [
            "curl", "-sS", "--request", "POST",
            "--url", f"{place.url}/client/v4/accounts/a/ai/run/{MODEL}",
            "--header", f"Authorization: Bearer {place.key}",
            "--form", "prompt=image 0 beside image 1", "--form", "steps=1", "--form", "width=96", "--form", "height=64",
            "--form", f"input_image_0=@{tmp_path}/0.png", "--form", f"input_image_1=@{tmp_path}/1.png",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    envelope = httpx.Response(200, content=reply.stdout).json()
    assert opened(envelope.pop("result")["image"]).size == (96, 64)
    assert envelope == {"success": True, "errors": [], "messages": []}


@pytest.mark.parametrize(
    ("model", "asked", "error", "code"),
    [
        ("@cf/black-forest-labs/flux-9-dev", {}, cloudflare.BadRequestError, 5007),
        ("nobody/nothing", {}, cloudflare.BadRequestError, 5007),
        ("@cf/black-forest-labs/flux-2-dev", {}, cloudflare.BadRequestError, 5007),  # known, and not served here
        (MODEL, {"num_steps": 0}, cloudflare.BadRequestError, 5004),
        (MODEL, {"width": 8}, cloudflare.BadRequestError, 5004),
        (MODEL, {"prompt": " "}, cloudflare.BadRequestError, 5004),
        (MODEL, {"mask": [1]}, cloudflare.BadRequestError, 5004),
        (MODEL, {"image_b64": "!"}, cloudflare.BadRequestError, 5004),
        (MODEL, {"image": [256]}, cloudflare.BadRequestError, 5004),
    ],
)
def test_errors(
    waiting: Cloudflare, model: str, asked: dict[str, Any], error: type[cloudflare.APIStatusError], code: int
) -> None:
    with pytest.raises(error) as refused:
        waiting.ai.run(model, **(ASKED | asked))
    assert [entry.code for entry in refused.value.errors] == [code]


def test_a_wrong_token(idle: Place) -> None:
    with connect(idle, api_token="nobody") as client, pytest.raises(cloudflare.AuthenticationError) as refused:
        client.ai.run(MODEL, **ASKED)
    assert [entry.code for entry in refused.value.errors] == [10000]


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"data": {"steps": "many"}}, "steps"),
        ({"data": {"prompt": "x"}, "files": {"image": picture()}}, "input_image_0"),
        ({"data": {"prompt": "x"}, "files": [("input_image_0", picture())] * 5}, "4 pictures"),
        ({"data": {"prompt": "x"}, "files": {"input_image_0": b"no picture"}}, "input_image"),
        ({"data": {"prompt": "x", "steps": ["1", "2"]}, "files": {"input_image_0": picture()}}, "steps"),
    ],
)
def test_forms_that_are_refused(idle: Place, form: dict[str, Any], words: str) -> None:
    reply = httpx.post(
        f"{idle.url}/client/v4/accounts/a/ai/run/{MODEL}",
        headers={"Authorization": f"Bearer {idle.key}"},
        trust_env=False,
        **{"files": {"prompt": (None, "x")}, **form},
    )
    assert (reply.status_code, reply.json()["success"], reply.json()["result"]) == (400, False, None)
    (error,) = reply.json()["errors"]
    assert error["code"] == 5004
    assert words in error["message"]


def test_a_call_that_waits_too_long_names_its_job_and_is_not_repeated(idle: Place) -> None:
    idle.seen.farm.settings = idle.settings.model_copy(update={"longest_wait": 1})
    with (
        Cloudflare(api_token=idle.key, base_url=f"{idle.url}/client/v4") as client,
        pytest.raises(cloudflare.APIStatusError) as late,
    ):
        client.ai.run(MODEL, **ASKED)
    assert (late.value.status_code, [entry.code for entry in late.value.errors]) == (408, [3007])
    uuid = late.value.errors[0].message.partition("/v1/jobs/")[2].split(" ")[0]  # type: ignore[union-attr]
    key = {"Authorization": f"Bearer {idle.key}"}
    listed = httpx.get(f"{idle.url}/v1/jobs", headers=key, trust_env=False).json()["data"]
    assert [(job["uuid"], job["status"]) for job in listed] == [(uuid, "QUEUED")]
