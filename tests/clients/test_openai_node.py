"""The official JavaScript client of OpenAI; its calls stand in ``tests/clients/node/openai.mjs``."""

from __future__ import annotations

import base64
import io

import httpx
import pytest
from PIL import Image
from sqlalchemy import select

from storage.records import Job
from tests.clients.calls import client_call
from tests.clients.conftest import Place
from tests.clients.javascript import run
from tests.making import MODEL

pytestmark = pytest.mark.timeout(300)  # the first of them may have to install the clients
NODE = "openai (Node)"
GENERATIONS, EDITS = "POST /v1/images/generations", "POST /v1/images/edits"


def shape(body: bytes) -> tuple[str | None, tuple[int, int]]:
    with Image.open(io.BytesIO(body)) as image:
        image.load()
        return image.format, image.size


@client_call(NODE, "images.generate({model, prompt, size}) and a reply that got lost", GENERATIONS)
@client_call(NODE, 'images.generate({n: 2, response_format: "b64_json"})', GENERATIONS)
@client_call(NODE, "images.generate({stream: true, partial_images: 2})", GENERATIONS)
@client_call(NODE, "images.generate({…}).withResponse()", GENERATIONS)
@client_call(NODE, "images.edit({image: file})", EDITS)
@client_call(NODE, "images.edit({image: [file, file]})", EDITS)
@client_call(NODE, "models.list()", "GET /v1/models")
@client_call(NODE, 'models.retrieve("black-forest-labs/flux-2-dev")', "GET /v1/models/{id}")
def test_openai(place: Place) -> None:
    place.seen.lost = 1
    said = run("openai.mjs", place)
    (url,) = said.pop("urls")
    assert shape(httpx.get(url, trust_env=False).content) == ("PNG", (64, 80))
    assert [shape(base64.b64decode(body)) for body in said.pop("images")] == [("WEBP", (64, 80))] * 2
    assert MODEL in said.pop("listed")
    with place.database.transaction() as session:
        made = [str(uuid) for uuid in session.scalars(select(Job.uuid).order_by(Job.seq))]
    assert len(made) == 6  # and seven requests
    assert said.pop("job") == made[0]
    assert said == {
        "total": 532,
        "edited": ["IMAGE_EDITOR"] * 2,
        "events": ["image_generation.partial_image"] * 2 + ["image_generation.completed"],
        "raw": [200, True],
        "retrieved": "black-forest-labs/flux-2-dev",
        "refused": [
            ["BadRequestError", "invalid_value", "n"],
            ["NotFoundError", "model_not_found", "model"],
        ],
    }
