"""From POST to picture on every real part, with the tools that a user has."""

from __future__ import annotations

import io
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.e2e.farms import KLEIN, Running, wait_for

pytestmark = pytest.mark.xdist_group("farm")
CANARY = "CANARY-lighthouse-7f3a"


def curl(*arguments: str) -> bytes:
    return subprocess.run(["curl", "-sS", "--max-time", "60", *arguments], check=True, capture_output=True).stdout


def picture(farm: Running, tmp_path: Path, name: str, colour: str) -> str:
    """Upload a picture as ``curl`` does; gives its id."""
    path = tmp_path / name
    Image.new("RGB", (200, 120), colour).save(path)
    key = f"Authorization: Bearer {farm.farm.api_key}"
    reply = json.loads(curl("-H", key, "-F", f"file=@{path}", f"{farm.farm.url}/v1/references"))
    identity: str = reply["id"]
    assert identity.startswith("ref_")
    return identity


def render(farm: Running, prompt_object: dict[str, Any], **fields: Any) -> dict[str, Any]:
    reply = farm.post(prompt_object, **fields)
    assert reply.status_code == 202, reply.text
    return farm.finished(reply.json()["aiRecord"]["uuid"])


def test_post_then_poll_gives_a_webp_of_the_size_asked_for(farm: Running) -> None:
    body = json.dumps(
        {"type": "IMAGE_GENERATOR", "model": KLEIN, "promptObject": {"prompt": "an unread prompt", "size": "300x201"}}
    )
    key = f"Authorization: Bearer {farm.farm.api_key}"
    reply = json.loads(curl("-H", key, "--json", body, f"{farm.farm.url}/v1/jobs"))
    record = farm.finished(reply["aiRecord"]["uuid"])
    assert record["status"] == "SUCCESS"
    with Image.open(io.BytesIO(curl(record["temporaryUrl"]))) as image:
        assert (image.format, image.size) == ("WEBP", (300, 201))
    (attempt,) = record["attempts"]
    assert attempt["effective"]["width"] == 300
    assert len(attempt["modelRevision"]) == 40
    assert set(attempt["timings"]) == {"queue", "load", "encode_prompt", "render", "encode", "upload"}


def test_a_link_that_was_altered_is_refused(farm: Running) -> None:
    link = render(farm, {"prompt": "a link", "size": "64x64"})["temporaryUrl"]
    assert httpx.get(link).status_code == 200
    ending = "0" if link[-1] != "0" else "1"
    assert httpx.get(link[:-1] + ending).status_code == 403
    assert httpx.get(link.split("?")[0]).status_code == 403


def test_an_asset_link_never_dies_and_needs_the_key(farm: Running) -> None:
    record = render(farm, {"prompt": "an asset", "size": "64x64"})
    (asset,) = record["links"]["assets"]
    assert httpx.get(asset).status_code == 401
    first, second = (httpx.get(asset, headers=farm.headers) for _ in range(2))
    assert first.status_code == 302
    assert httpx.get(second.headers["location"]).content == httpx.get(record["temporaryUrl"]).content


def test_two_uploaded_references(farm: Running, tmp_path: Path) -> None:
    images = [picture(farm, tmp_path, "red.png", "red"), picture(farm, tmp_path, "blue.jpg", "blue")]
    asked = {"prompt": "the first beside the second", "images": images, "seed": 3, "size": "128x96"}
    record = render(farm, asked, type="IMAGE_EDITOR")
    assert record["status"] == "SUCCESS"
    assert record["aiRecordDetail"]["promptObject"] == asked
    other = render(farm, asked | {"images": images[::-1]}, type="IMAGE_EDITOR")
    assert httpx.get(record["temporaryUrl"]).content != httpx.get(other["temporaryUrl"]).content


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_the_same_seed_gives_the_same_picture(farm: Running, seed: int) -> None:
    asked = {"prompt": "twins", "size": "64x64", "output_format": "png"}
    first, again, other = (render(farm, asked | {"seed": one}) for one in (seed, seed, 5))
    pictures = [Image.open(io.BytesIO(httpx.get(one["temporaryUrl"]).content)) for one in (first, again, other)]
    assert first["attempts"][0]["seeds"] == [seed]
    pixels = [one.tobytes() for one in pictures]  # the files differ: each carries a manifest of its own
    assert pixels[0] == pixels[1] != pixels[2]


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp", "avif", "gif"])
def test_every_format(farm: Running, output_format: str) -> None:
    record = render(farm, {"prompt": "formats", "size": "65x64", "output_format": output_format, "n": 2})
    for link in record["temporaryUrls"]:
        reply = httpx.get(link)
        assert reply.headers["content-type"] == f"image/{output_format}"
        with Image.open(io.BytesIO(reply.content)) as image:
            assert (image.format, image.size) == (output_format.upper(), (65, 64))


def test_a_cancel_mid_render_frees_the_worker_at_once(farm: Running) -> None:
    slow = farm.post({"prompt": "slow", "size": "512x512", "num_inference_steps": 50, "n": 4}).json()["aiRecord"]
    wait_for(lambda: farm.record(slow["uuid"])["progress"]["step"] > 0)
    following = farm.post({"prompt": "next", "size": "64x64"}).json()["aiRecord"]
    assert farm.record(following["uuid"])["status"] == "QUEUED"
    canceled_at = time.monotonic()
    reply = httpx.post(slow["links"]["cancel"], headers=farm.headers)
    assert reply.json()["aiRecord"]["status"] == "CANCELED"
    assert farm.finished(following["uuid"])["status"] == "SUCCESS"
    assert time.monotonic() - canceled_at < 10, "four pictures of 50 steps would take much longer"
    record = farm.record(slow["uuid"])
    assert (record["status"], record["error"]["code"]) == ("CANCELED", "canceled")
    assert record["temporaryUrls"] == []
    assert httpx.post(slow["links"]["cancel"], headers=farm.headers).status_code == 409


def test_events_come_in_order_and_replay(farm: Running) -> None:
    record = farm.post({"prompt": "events", "size": "128x128", "num_inference_steps": 30}).json()["aiRecord"]
    key = f"Authorization: Bearer {farm.farm.api_key}"
    stream = curl("-N", "-H", key, record["links"]["events"]).decode()
    events = [block for block in stream.split("\n\n") if "event: " in block]
    ids = [int(line[4:]) for block in events for line in block.splitlines() if line.startswith("id: ")]
    states = [
        json.loads(line[6:])["status"]
        for block in events
        if "event: status" in block
        for line in block.splitlines()
        if line.startswith("data: ")
    ]
    assert states == ["QUEUED", "RUNNING", "SUCCESS"]
    assert ids == sorted(set(ids))
    assert any("event: progress" in block for block in events)
    replay = curl("-N", "-H", key, "-H", f"Last-Event-ID: {ids[1]}", record["links"]["events"]).decode()
    assert [int(line[4:]) for line in replay.splitlines() if line.startswith("id: ")] == ids[2:]


def test_prefer_wait_answers_with_the_finished_record(farm: Running) -> None:
    body = {"type": "IMAGE_GENERATOR", "model": KLEIN, "promptObject": {"prompt": "wait", "size": "64x64"}}
    reply = httpx.post(f"{farm.farm.url}/v1/jobs", json=body, headers={**farm.headers, "Prefer": "wait=30"}, timeout=40)
    assert reply.status_code == 200
    assert reply.json()["aiRecord"]["status"] == "SUCCESS"


def test_flower_lists_the_uuids_behind_its_password_and_shows_no_prompt(farm: Running) -> None:
    record = render(farm, {"prompt": CANARY, "size": "64x64"})
    flower = farm.farm.flower_url
    login = (farm.farm.flower_user, farm.farm.flower_password)
    assert httpx.get(f"{flower}/api/tasks").status_code == 401
    assert httpx.post(f"{flower}/tasks/datatable").status_code == 401

    def tasks() -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{flower}/api/tasks", auth=login).json()
        return found

    wait_for(lambda: tasks().get(record["uuid"], {}).get("state") == "SUCCESS")
    assert tasks()[record["uuid"]]["name"] == "fluxfarm.render"
    pages = [httpx.get(f"{flower}{path}", auth=login).text for path in ("/api/tasks", "/tasks", "/api/workers", "/")]
    assert CANARY not in "".join(pages)
    assert httpx.post(f"{flower}/api/worker/shutdown/x", auth=login).status_code == 403


def test_nothing_secret_is_written_outside_the_record(farm: Running) -> None:
    record = render(farm, {"prompt": CANARY, "size": "64x64"})
    signature = record["temporaryUrl"].partition("signature=")[2][:20]
    assert signature
    secrets = [CANARY.encode(), farm.farm.api_key.encode(), signature.encode()]
    for path in [*(farm.data_dir / "logs").rglob("*"), *(farm.data_dir / "valkey").rglob("*")]:
        if path.is_file():
            body = path.read_bytes()
            assert not [secret for secret in secrets if secret in body], path
    commands = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True).stdout
    assert not [secret for secret in (*secrets, farm.farm.flower_password.encode()) if secret in commands]


def test_delete_leaves_no_record_and_no_object(farm: Running) -> None:
    record = render(farm, {"prompt": "gone", "size": "64x64"})
    (key,) = record["aiRecordDetail"]["resultObject"]
    path = farm.data_dir / "objects" / key
    assert path.is_file()
    assert httpx.delete(record["links"]["self"], headers=farm.headers).status_code == 204
    assert not path.exists()
    assert farm.get(f"/v1/jobs/{record['uuid']}").status_code == 404
    assert httpx.get(record["temporaryUrl"]).status_code == 404


def test_the_client_renders(farm: Running) -> None:
    with farm.client() as client:
        rendered = client.render("from the client", model=KLEIN, size="96x64", output_format="png", seed=11)
        with Image.open(io.BytesIO(rendered.images[0])) as image:
            assert image.size == (96, 64)
        assert client.get(rendered.record.uuid).status == "SUCCESS"
