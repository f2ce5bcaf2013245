"""LoRAs at the door: what is listed, what a job may name, and who may render it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.main import create_app
from fluxfarm.settings import Settings
from storage.database import Database
from tests.api.samples import body, rows
from tests.remote.office import DEV, opened, order
from tests.stubs.fal import FalStub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "loras"
    made.mkdir()
    for name in ("red.safetensors", "blue-2.1.safetensors", ".hidden.safetensors", "a b.safetensors", "notes.txt"):
        (made / name).write_bytes(b"12345")
    (made / "deep.safetensors").mkdir()
    (tmp_path / "secret.safetensors").write_bytes(b"")
    return made


@pytest.fixture
def with_loras(settings: Settings, folder: Path, api_key: str) -> Iterator[TestClient]:
    app = create_app(settings.model_copy(update={"loras": folder}))
    with TestClient(app, headers={"Authorization": f"Bearer {api_key}"}) as client:
        yield client


def test_the_list_has_what_a_job_may_name(with_loras: TestClient, api: TestClient) -> None:
    found = with_loras.get("/v1/loras").json()["data"]
    assert [(one["name"], one["sizeBytes"]) for one in found] == [("blue-2.1", 5), ("red", 5)]
    assert api.get("/v1/loras").json() == {"data": []}


@pytest.mark.parametrize("lora", [{"name": "red"}, {"path": "red.safetensors", "scale": 1}])
def test_a_job_names_one_by_either_name(with_loras: TestClient, lora: dict[str, Any]) -> None:
    reply = with_loras.post("/v1/jobs", json=body({"loras": [lora, {"name": "blue-2.1", "scale": 0.5}]}))
    assert reply.status_code == 202, reply.text
    assert reply.json()["aiRecord"]["aiRecordDetail"]["promptObject"]["loras"][0] == lora


@pytest.mark.parametrize(
    ("loras", "status", "code", "param"),
    [
        ([{"name": "green"}], 404, "lora_not_found", "loras.0"),
        ([{"name": "red"}, {"name": "deep"}], 404, "lora_not_found", "loras.1"),
        ([{"path": "../secret"}], 400, "invalid_field", "loras.0"),
        ([{"path": "/etc/passwd"}], 400, "invalid_field", "loras.0"),
        ([{"path": "..%2fsecret"}], 400, "invalid_field", "loras.0"),
        ([{"path": ".hidden"}], 400, "invalid_field", "loras.0"),
        ([{"path": "red\n"}], 400, "invalid_field", "loras.0"),
        ([{"path": "https://example.com/red.safetensors"}], 400, "invalid_field", "loras.0"),
        ([{"path": "black-forest-labs/a-lora"}], 400, "invalid_field", "loras.0"),
        ([{"name": ""}], 400, "invalid_field", "loras.0"),
        ([{}], 400, "invalid_field", "loras.0"),
        ([{"name": "red", "path": "red"}], 400, "invalid_field", "loras.0"),
        ([{"name": "red"}, {"path": "red.safetensors"}], 400, "invalid_field", "loras.1"),
        ([{"name": "red", "scale": 4.1}], 400, "invalid_field", "loras.0.scale"),
        ([{"name": "red", "scale": -0.1}], 400, "invalid_field", "loras.0.scale"),
        ([{"name": "red", "weight": 1}], 400, "unknown_field", "loras.0.weight"),
        ([{"name": "red"}] * 4, 400, "invalid_field", "loras"),
        ("red", 400, "invalid_field", "loras"),
    ],
)
def test_what_is_refused(
    with_loras: TestClient, database: Database, loras: Any, status: int, code: str, param: str
) -> None:
    reply = with_loras.post("/v1/jobs", json=body({"loras": loras}))
    assert (reply.status_code, reply.json()["code"]) == (status, code), reply.text
    assert reply.json()["param"] == f"promptObject.{param}"
    assert rows(database)["jobs"] == 0


def test_without_a_folder_there_are_none(api: TestClient, database: Database) -> None:
    reply = api.post("/v1/jobs", json=body({"loras": [{"name": "red"}]}))
    assert (reply.status_code, reply.json()["code"]) == (404, "lora_not_found")
    assert rows(database)["jobs"] == 0


def test_fals_callers_name_them_as_there(with_loras: TestClient) -> None:
    def post(path: str) -> Any:
        asked = {"prompt": "a fox", "loras": [{"path": path, "scale": 0.7}], "acceleration": "high"}
        return with_loras.post("/fal/queue/fluxfarm/flux-2-klein-small", json=asked)

    assert post("red").status_code == 200
    told = [post("green"), post("https://example.com/red.safetensors")]
    assert [one.status_code for one in told] == [404, 422]
    assert "loras" in told[1].text


def test_a_provider_is_not_asked_to_draw_with_the_farms_files(
    settings: Settings, database: Database, api_key: str, folder: Path
) -> None:
    with opened(settings.model_copy(update={"loras": folder}), database, api_key, FalStub()) as office:
        asked = order(prompt_object={"loras": [{"name": "red"}]}, provider="fal")
        reply = office.api.post("/v1/jobs", json=asked)
    assert DEV in reply.text
    assert (reply.status_code, reply.json()["code"]) == (400, "no_route")
    assert "fal cannot draw with this farm's LoRAs." in reply.json()["detail"]
