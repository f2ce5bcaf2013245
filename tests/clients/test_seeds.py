"""The published samples of five services, with nothing changed but their host and key.

They ask for a megapixel and 28 steps, minutes each on a laptop, so the worker of these tests sketches: the model draws
64 x 64 pixels in one step, which are scaled up to the size asked for. All else is the farm as it is.
"""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from fluxfarm.settings import Settings
from fluxfarm.sources import parse_sources
from storage.queue import local_queue
from tests.api.samples import picture
from tests.clients.conftest import Place
from tests.clients.javascript import FOLDER
from tests.clients.rendering import rendering
from tests.programs import node_modules
from workers.leases import Held
from workers.providers.drawn import Drawn
from workers.providers.local import LocalProvider

pytestmark = pytest.mark.timeout(300)  # the first of them may have to install the JavaScript clients
SEEDS = Path(__file__).parent / "seeds"
DEV, FLEX = "black-forest-labs/flux-2-dev", "black-forest-labs/flux-2-flex"
QUEUES = (local_queue(DEV), local_queue(FLEX))
KEYS = {"uuid", "model", "type", "status", "createdAt", "aiRecordDetail", "temporaryUrl"}


class Sketcher(LocalProvider):
    """The local model, in a hurry."""

    def draw(self, held: Held, *more: Any, **others: Any) -> Drawn:
        request = held.claim.request
        size = request.size.rendered
        small = request.model_copy(update={"width": 64, "height": 64, "steps": 1})
        drawn = super().draw(replace(held, claim=replace(held.claim, request=small)), *more, **others)
        pictures = [image for image in drawn.images if not isinstance(image, dict)]
        return replace(drawn, images=[image.resize((size.width, size.height)) for image in pictures])


@pytest.fixture
def settings(settings: Settings, dev_folder: Path) -> Settings:
    return settings.model_copy(update={"models": parse_sources(f"{DEV}={dev_folder},{FLEX}={dev_folder}")})


@pytest.fixture(scope="module")
def sketcher(dev_folder: Path) -> Iterator[LocalProvider]:
    made = Sketcher(Settings(models=parse_sources(f"{DEV}={dev_folder},{FLEX}={dev_folder}"), device="cpu"), QUEUES)
    yield made
    made.close()


@pytest.fixture
def farm(idle: Place, sketcher: LocalProvider) -> Iterator[Place]:
    with rendering(idle.settings, sketcher, *QUEUES):
        yield idle


def run(name: str, farm: Place, folder: Path) -> str:
    """What the sample says."""
    (folder / "source.png").write_bytes(picture())
    path = folder / name
    path.write_text((SEEDS / name).read_text(encoding="utf-8"), encoding="utf-8")
    if name.endswith(".mjs"):
        (folder / "node_modules").symlink_to(node_modules(FOLDER))
    runner = {".sh": "bash", ".mjs": "node", ".py": sys.executable}[path.suffix]
    environment = {"PATH": os.environ["PATH"], "FARM_URL": farm.url, "FARM_KEY": farm.key}
    done = subprocess.run(
        [runner, str(path)], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=90
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def opened(body: bytes) -> tuple[str | None, tuple[int, int]]:
    with Image.open(io.BytesIO(body)) as image:
        image.load()
        return image.format, image.size


def fetched(url: str) -> tuple[str | None, tuple[int, int]]:
    return opened(httpx.get(url, trust_env=False).content)


@pytest.mark.parametrize("model", ["dev", "flex"])
def test_aigateway(farm: Place, tmp_path: Path, model: str) -> None:
    reply = json.loads(run(f"aigateway_{model}.sh", farm, tmp_path))
    assert isinstance(reply["created"], int)
    assert fetched(reply["data"][0]["url"]) == ("PNG", (1024, 1024))
    assert fetched(run(f"aigateway_{model}.py", farm, tmp_path)) == ("PNG", (1024, 1024))


@pytest.mark.parametrize("name", ["lumenfall.sh", "lumenfall.mjs", "lumenfall.py"])
def test_lumenfall(farm: Place, tmp_path: Path, name: str) -> None:
    said = run(name, farm, tmp_path)
    url = json.loads(said)["data"][0]["url"] if name.endswith(".sh") else said
    assert fetched(url) == ("PNG", (1024, 1024))


@pytest.mark.parametrize("name", ["cloudflare.sh", "cloudflare.mjs"])
def test_cloudflare(farm: Place, tmp_path: Path, name: str) -> None:
    reply = json.loads(run(name, farm, tmp_path))
    size = (1024, 1024)
    assert opened(base64.b64decode(reply.pop("result")["image"])) == ("JPEG", size)
    assert reply == {"success": True, "errors": [], "messages": []}


@pytest.mark.parametrize("name", ["one_min.sh", "one_min.mjs", "one_min.py"])
def test_one_min(farm: Place, tmp_path: Path, name: str) -> None:
    reply = json.loads(run(name, farm, tmp_path))
    assert set(reply) == {"aiRecord"}
    record = reply["aiRecord"]
    assert set(record) == KEYS
    assert (record["model"], record["type"], record["status"]) == (DEV, "IMAGE_GENERATOR", "SUCCESS")
    detail = record["aiRecordDetail"]
    assert set(detail) == {"promptObject", "resultObject"}
    assert detail["promptObject"] == {
        "prompt": "A cozy coffee shop interior in the morning, warm light, steam rising from a cup",
        "aspect_ratio": "4:5",
        "num_inference_steps": 28,
        "guidance": 3.5,
        "megapixels": "1",
        "output_format": "webp",
        "output_quality": 85,
    }
    (key,) = detail["resultObject"]
    assert key in record["temporaryUrl"]
    assert fetched(record["temporaryUrl"]) == ("WEBP", (916, 1145))
    again = httpx.get(f"{farm.url}/api/features/{record['uuid']}", headers={"API-KEY": farm.key}, trust_env=False)
    assert again.status_code == 200
    assert again.json()["aiRecord"]["aiRecordDetail"] == detail


def test_one_min_edits_an_asset(farm: Place, tmp_path: Path) -> None:
    (tmp_path / "source.png").write_bytes(picture())
    with httpx.Client(base_url=farm.url, headers={"API-KEY": farm.key}, trust_env=False, timeout=60) as client:
        with (tmp_path / "source.png").open("rb") as file:
            kept = client.post("/api/assets", files={"asset": file}).json()
        assert kept["asset"]["key"] == kept["fileContent"]["path"]
        asked = {"prompt": "dusk", "imageUrl": kept["fileContent"]["path"], "aspect_ratio": "match_input_image"}
        body = {"type": "IMAGE_EDITOR", "model": DEV, "promptObject": asked}
        record = client.post("/api/features", json=body).json()["aiRecord"]
        assert (record["status"], record["aiRecordDetail"]["promptObject"]) == ("SUCCESS", asked)
        assert fetched(record["temporaryUrl"])[1] == (1254, 836)


def test_one_min_after_the_wait(idle: Place) -> None:
    idle.seen.farm.settings = idle.settings.model_copy(update={"longest_wait": 1})
    body = {"type": "IMAGE_GENERATOR", "model": DEV, "promptObject": {"prompt": "a fox"}}
    with httpx.Client(base_url=idle.url, headers={"API-KEY": idle.key}, trust_env=False, timeout=60) as client:
        reply = client.post("/api/features", json=body, headers={"Idempotency-Key": "one"})
        record = reply.json()["aiRecord"]
        assert (reply.status_code, record["status"], record["temporaryUrl"]) == (202, "PENDING", None)
        assert client.get(reply.headers["location"]).json() == reply.json()
        again = client.post("/api/features", json=body, headers={"Idempotency-Key": "one"})
        assert (again.json()["aiRecord"]["uuid"], again.headers["idempotency-replayed"]) == (record["uuid"], "true")
        assert client.post(f"/v1/jobs/{record['uuid']}/cancel").status_code == 200
        over = client.get(f"/api/features/{record['uuid']}")
        assert (over.status_code, over.json()["aiRecord"]["status"]) == (200, "CANCELLED")
        wrong = client.post("/api/features", json={**body, "model": "nobody"})
        assert (wrong.status_code, wrong.json()["code"]) == (404, "model_not_found")
