from __future__ import annotations

import base64
import hashlib
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from PIL import Image as Pillow
from starlette.testclient import TestClient

from api.main import create_app
from fluxfarm.errors import UnreachableUrl
from fluxfarm.settings import Settings
from storage.database import Database
from storage.objects import ObjectStore
from storage.records import Tenant
from storage.repository import jobs
from tests.api.samples import body, picture, rows


def upload(api: TestClient, content: bytes, field: str = "file") -> Any:
    return api.post("/v1/references", files={field: ("../../etc/passwd.png", content, "image/png")})


def edit(images: list[str], **asked: Any) -> dict[str, Any]:
    return body({"images": images, **asked}, type="IMAGE_EDITOR")


def data_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def bomb(side: int) -> bytes:
    """A grey PNG of ``side`` squared pixels in a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    row = b"\0" * (side // 8 + 2)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def animated() -> bytes:
    out = io.BytesIO()
    frames = [Pillow.new("RGB", (32, 32), (shade, 0, 0)) for shade in (0, 90, 180)]
    frames[0].save(out, "PNG", save_all=True, append_images=frames[1:])
    return out.getvalue()


def test_an_upload_is_redrawn_and_named_in_a_job(
    api: TestClient, database: Database, store: ObjectStore, tenant: Tenant
) -> None:
    sent = picture(96, 64, "JPEG")
    kept = upload(api, sent)
    assert kept.status_code == 201, kept.text
    reference = kept.json()
    assert reference["id"].startswith("ref_")
    assert (reference["width"], reference["height"]) == (96, 64)
    accepted = api.post("/v1/jobs", json=edit([reference["id"], reference["id"]], size=None))
    assert accepted.status_code == 202, accepted.text
    assert accepted.json()["aiRecord"]["aiRecordDetail"]["promptObject"]["images"] == [reference["id"]] * 2
    with database.transaction() as session:
        request = jobs.read(session, tenant.id, UUID(accepted.json()["aiRecord"]["uuid"])).render_request
    stored = store.get(request.references[0])
    assert hashlib.sha256(stored).hexdigest() == reference["sha256"]
    assert len(stored) == reference["bytes"]
    assert Pillow.open(io.BytesIO(stored)).format == "PNG"
    assert request.references[0] == request.references[1]
    assert request.width / request.height == pytest.approx(1.5, rel=0.02)


def test_a_data_uri_is_kept_with_the_job_and_erased_with_it(
    api: TestClient, database: Database, store: ObjectStore, tenant: Tenant
) -> None:
    content = picture(64, 64)
    accepted = api.post("/v1/jobs", json=edit([data_uri(content)]))
    assert accepted.status_code == 202, accepted.text
    uuid = accepted.json()["aiRecord"]["uuid"]
    echoed = accepted.json()["aiRecord"]["aiRecordDetail"]["promptObject"]["images"]
    assert echoed == [f"data:image/png;base64,…sha256:{hashlib.sha256(content).hexdigest()}"]
    with database.transaction() as session:
        request = jobs.read(session, tenant.id, UUID(uuid)).render_request
    assert request.references[0].startswith(f"t/{tenant.id}/{uuid}/0/")
    assert store.stat(request.references[0]) is not None
    assert api.delete(f"/v1/jobs/{uuid}").status_code == 204
    assert store.stat(request.references[0]) is None


def test_urls_are_fetched_in_order(settings: Settings, api_key: str, database: Database, tenant: Tenant) -> None:
    asked: list[str] = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        return picture(64 * len(asked), 64)

    with TestClient(create_app(settings, fetch=fetch), headers={"API-KEY": api_key}) as api:
        own = upload(api, picture(64, 128)).json()["id"]
        urls = ["https://example.com/a.png", "https://example.com/b.png"]
        accepted = api.post(
            "/v1/jobs", json=edit([urls[0], own, urls[1]], aspect_ratio="match_input_image", size="auto")
        )
        assert accepted.status_code == 202, accepted.text
    assert asked == urls
    with database.transaction() as session:
        request = jobs.read(session, tenant.id, UUID(accepted.json()["aiRecord"]["uuid"])).render_request
    assert [("/references/" in key) for key in request.references] == [False, True, False]
    assert request.width == request.height


@pytest.fixture
def nothing_stored(database: Database, settings: Settings) -> Iterator[None]:
    yield
    assert set(rows(database).values()) == {0}
    objects: Path = settings.data_dir / "objects"
    assert [path for path in objects.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("nothing_stored")
def test_when_the_second_picture_fails_the_first_is_not_kept(settings: Settings, api_key: str) -> None:
    def fetch(url: str) -> bytes:
        raise UnreachableUrl(f"{url} is down")

    with TestClient(create_app(settings, fetch=fetch), headers={"API-KEY": api_key}) as api:
        refused = api.post("/v1/jobs", json=edit([data_uri(picture()), "https://example.com/a.png"]))
    assert (refused.status_code, refused.json()["code"]) == (400, "unreachable_url")
    assert refused.json()["param"] == "promptObject.images.1"


@pytest.mark.usefixtures("nothing_stored")
def test_a_key_that_is_revoked_meanwhile_stores_nothing(settings: Settings, api_key: str, database: Database) -> None:
    def fetch(_: str) -> bytes:
        assert api.delete(f"/v1/keys/{key_id}").status_code == 204
        return picture()

    with TestClient(create_app(settings, fetch=fetch), headers={"API-KEY": api_key}) as api:
        key_id = api.get("/v1/keys").json()["data"][0]["id"]
        refused = api.post("/v1/jobs", json=edit(["https://example.com/a.png"]))
    assert refused.status_code == 401
    assert database is not None


BAD = {
    "empty": b"",
    "text": b"hello",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "gif": b"GIF89a" + b"\0" * 40,
    "cut": picture()[:-30],
    "bomb": bomb(13_300),
    "animated": animated(),
}


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_what_is_no_picture(api: TestClient, content: bytes) -> None:
    refused = upload(api, content)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_reference"), refused.text
    assert refused.json()["param"] == "file"
    refused = api.post("/v1/jobs", json=edit([data_uri(content)]))
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_reference"), refused.text


@pytest.mark.usefixtures("nothing_stored")
def test_damaged_forms(api: TestClient) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    for content, headers, status, code in (
        (b"", form, 400, "invalid_field"),
        (b"--x\r\nnonsense", form, 400, "invalid_field"),
        (b"--y--", form, 400, "malformed_body"),
        (picture(), {"Content-Type": "multipart/form-data"}, 400, "malformed_body"),
        (picture(), {"Content-Type": "image/png"}, 415, "unsupported_media_type"),
        (b"--x--\r\n", form, 400, "invalid_field"),
    ):
        reply = api.post("/v1/references", content=content, headers=headers)
        assert (reply.status_code, reply.json()["code"]) == (status, code), (content[:20], reply.text)
    assert upload(api, picture(), field="image").json()["code"] == "unknown_field"
    two = [("file", ("a.png", picture())), ("file", ("b.png", picture()))]
    assert api.post("/v1/references", files=two).json()["code"] == "malformed_body"
    text = api.post("/v1/references", data={"file": "text"}, files={"file": ("", b"")})
    assert text.status_code == 400


@pytest.mark.usefixtures("nothing_stored")
def test_uploads_have_their_own_cap(settings: Settings, api_key: str) -> None:
    small = settings.model_copy(update={"upload_limit": 2000})
    with TestClient(create_app(small), headers={"API-KEY": api_key}) as api:
        for size in (2001, 40_000):
            refused = upload(api, b"\x89PNG\r\n\x1a\n" + b"\0" * size)
            assert (refused.status_code, refused.json()["code"]) == (413, "payload_too_large")


def test_anothers_reference_does_not_exist(api: TestClient, other_key: str, database: Database) -> None:
    theirs = upload(api, picture()).json()["id"]
    refused = api.post("/v1/jobs", json=edit([theirs]), headers={"Authorization": f"Bearer {other_key}"})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_reference")
    assert rows(database)["jobs"] == 0
