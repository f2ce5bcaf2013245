"""``POST /v1/verify``: a picture of the farm's, a stranger's, a changed one, and what is no picture."""

from __future__ import annotations

import io

import pytest
from fastapi import FastAPI
from PIL import Image as Pillow
from starlette.testclient import TestClient

from api.main import create_app
from fluxfarm.settings import Settings
from storage.watermark import open_watermark
from tests.api.samples import SMALL, Hand, body, picture


def signed(app: FastAPI) -> bytes:
    out = io.BytesIO()
    Pillow.effect_noise((80, 60), 50).convert("RGB").save(out, "WEBP")
    done: bytes = app.state.farm.provenance.sign(out.getvalue(), "image/webp", SMALL)
    return done


def ask(api: TestClient, content: bytes) -> dict[str, object]:
    reply = api.post("/v1/verify", files={"file": ("x", content)})
    assert reply.status_code == 200, reply.text
    found: dict[str, object] = reply.json()
    return found


def test_a_picture_of_the_farm_is_known_with_its_job(api: TestClient, app: FastAPI, hand: Hand, other_key: str) -> None:
    content = signed(app)
    uuid = api.post("/v1/jobs", json=body()).json()["aiRecord"]["uuid"]
    hand.finish(hand.claim(uuid), (content,))
    found = ask(api, content)
    assert (found["verdict"], found["model"], found["job"]) == ("made_here", SMALL, uuid)
    theirs = api.post("/v1/verify", files={"file": ("x", content)}, headers={"Authorization": f"Bearer {other_key}"})
    assert (theirs.json()["verdict"], theirs.json()["job"]) == ("made_here", None)


def test_changed_and_unsigned_pictures_are_told(api: TestClient, app: FastAPI) -> None:
    content = bytearray(signed(app))
    content[-30] ^= 1
    assert ask(api, bytes(content))["verdict"] == "changed"
    assert ask(api, picture()) == {
        "verdict": "unsigned",
        "generator": None,
        "model": None,
        "sourceType": None,
        "signedBy": None,
        "problems": [],
        "watermark": None,
        "job": None,
    }


def test_the_watermark_is_found_in_a_file_that_lost_its_manifest(settings: Settings, api_key: str) -> None:
    settings = settings.model_copy(update={"watermark": True})
    mark = open_watermark(settings)
    assert mark is not None
    out = io.BytesIO()
    plain = Pillow.effect_noise((256, 256), 40).convert("RGB")
    mark.mark(plain).save(out, "JPEG", quality=80)
    with TestClient(create_app(settings), headers={"Authorization": f"Bearer {api_key}"}) as api:
        found = ask(api, out.getvalue())
        assert (found["verdict"], found["watermark"]) == ("unsigned", True)
        assert ask(api, picture())["watermark"] is False
        out = io.BytesIO()
        plain.save(out, "GIF")
        assert ask(api, out.getvalue())["watermark"] is None


@pytest.mark.parametrize(
    ("files", "status", "code"),
    [
        ({"file": ("x", b"not a picture")}, 415, "unsupported_media_type"),
        ({"picture": ("x", b"abc")}, 400, "unknown_field"),
        ({}, 415, "unsupported_media_type"),
    ],
)
def test_bad_uploads_are_refused(api: TestClient, files: dict[str, tuple[str, bytes]], status: int, code: str) -> None:
    reply = api.post("/v1/verify", files=files)
    assert (reply.status_code, reply.json()["code"]) == (status, code)
