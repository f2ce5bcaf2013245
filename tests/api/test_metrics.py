"""What Prometheus reads from the API: parsed by its own client, and without a word of a tenant's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from starlette.testclient import TestClient

from api.main import create_app
from fluxfarm.settings import Settings
from tests.api.samples import body

CANARY = "canary-in-a-coal-mine"


def samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def test_it_counts_what_waits_and_what_was_asked_but_names_nobody(api: TestClient) -> None:
    asked = body({"prompt": CANARY}, tags=[CANARY], lane="bulk")
    uuid = api.post("/v1/jobs", json=asked).json()["aiRecord"]["uuid"]
    api.get(f"/v1/jobs/{uuid}")
    api.get(f"/v1/jobs/{uuid[:-4]}0000")
    api.get("/nowhere/at/all")
    api.post("/fal/proxy", json={}, headers={"x-fal-target-url": "https://queue.fal.run/fal-ai/flux-2"})
    reply = api.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain; version=")
    assert CANARY not in reply.text
    assert uuid not in reply.text
    found = list(samples(reply.text))
    (waiting,) = [value for name, labels, value in found if name == "fluxfarm_jobs" and labels["state"] == "QUEUED"]
    assert waiting == 1
    counted = {
        (labels["route"], labels["status"]): value
        for name, labels, value in found
        if name == "fluxfarm_http_requests_total"
    }
    assert counted["/v1/jobs", "202"] == 1
    assert counted["/v1/jobs/{uuid}", "200"] == 1
    assert counted["/v1/jobs/{uuid}", "404"] == 1
    assert counted["unmatched", "404"] == 1
    assert counted["/fal/queue/{endpoint:path}", "422"] == 1
    assert ("fluxfarm_database_up", {}, 1.0) in found


def test_a_token_keeps_strangers_out(settings: Settings) -> None:
    guarded = settings.model_copy(update={"metrics_token": SecretStr("a-long-token")})
    with TestClient(create_app(guarded)) as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers={"Authorization": "Bearer wrong"}).json()["code"] == "invalid_api_key"
        assert client.get("/metrics", headers={"Authorization": "Bearer a-long-token"}).status_code == 200


def test_without_a_database_it_says_so_and_still_answers(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": SecretStr("postgresql://nobody@127.0.0.1:1/none")})
    with TestClient(create_app(away)) as client:
        reply = client.get("/metrics")
    assert reply.status_code == 200
    assert ("fluxfarm_database_up", {}, 0.0) in list(samples(reply.text))


@pytest.mark.parametrize("path", ["/metrics", "/healthz"])
def test_probes_and_metrics_need_no_key(app: FastAPI, path: str) -> None:
    with TestClient(app) as client:
        assert client.get(path).status_code == 200
