"""A tenant that renders for business gets no weights for non-commercial use, whatever language it asks in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from fluxfarm.catalog import find_model
from storage.database import Database
from storage.records import Tenant
from tests.api import campaigns_made
from tests.api.samples import body, picture, rows

DEV = "black-forest-labs/FLUX.2-dev"
FEATURE = {"type": "IMAGE_GENERATOR", "model": DEV, "promptObject": {"prompt": "a fox", "aspect_ratio": "1:1"}}
DRAWN = {"model": DEV, "prompt": "a fox"}
#: a call of each dialect that asks for FLUX.2 [dev], by the names that its callers use
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "native": ("/v1/jobs", {"json": body(model=DEV)}),
    "campaign": ("/v1/campaigns", {"json": campaigns_made.spec(model=DEV)}),
    "campaign, planned": ("/v1/campaigns?dryRun=true", {"json": campaigns_made.spec(model=DEV)}),
    "openai": ("/v1/images/generations", {"json": DRAWN}),
    "openai edit": ("/v1/images/edits", {"data": DRAWN, "files": {"image": picture()}}),
    "lumenfall": ("/openai/v1/images/generations", {"json": {**DRAWN, "model": "flux.2-dev"}}),
    "1min.ai": ("/api/features", {"json": FEATURE}),
    "cloudflare": ("/client/v4/accounts/a/ai/run/@cf/black-forest-labs/flux-2-dev", {"json": {"prompt": "a fox"}}),
    "fal queue": ("/fal/queue/fal-ai/flux-2", {"json": {"prompt": "a fox"}}),
    "fal run": ("/fal/run/fal-ai/flux-2", {"json": {"prompt": "a fox"}}),
    "replicate": ("/replicate/v1/predictions", {"json": {"version": DEV, "input": {"prompt": "a fox"}}}),
    "replicate model": (
        "/replicate/v1/models/black-forest-labs/flux-2-dev/predictions",
        {"json": {"input": {"prompt": "a fox"}}},
    ),
}


@pytest.fixture
def _commercial(api: TestClient, tenant: Tenant) -> None:
    reply = api.patch(f"/v1/tenants/{tenant.id}", json={"commercial": True})
    assert reply.status_code == 200, reply.text


@pytest.mark.usefixtures("_commercial")
@pytest.mark.parametrize("dialect", CALLS)
def test_no_dialect_is_a_way_round(api: TestClient, database: Database, dialect: str) -> None:
    path, asked = CALLS[dialect]
    refused = api.post(path, **asked)
    assert refused.status_code == 403, refused.text
    assert "commercial use" in refused.text
    allowed = refused.text.rpartition("; ")[2].partition(" is allowed")[0]
    assert find_model(allowed).commercial
    assert set(rows(database).values()) == {0}


@pytest.mark.usefixtures("_commercial")
def test_a_batch_refuses_the_line(api: TestClient, database: Database) -> None:
    line = {"custom_id": "one", "method": "POST", "url": "/v1/images/generations", "body": DRAWN}
    lines = {"file": ("calls.jsonl", json.dumps(line).encode())}
    file = api.post("/v1/files", files=lines, data={"purpose": "batch"}).json()["id"]
    asked = {"input_file_id": file, "endpoint": "/v1/images/generations", "completion_window": "24h"}
    made = api.post("/v1/batches", json=asked).json()
    told = json.loads(api.get(f"/v1/files/{made['error_file_id']}/content").text)["response"]
    assert told["status_code"] == 403
    assert "commercial use" in told["body"]["error"]["message"]
    assert rows(database)["jobs"] == 0
