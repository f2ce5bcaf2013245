"""One trace of a job, from its POST to its webhook, as a real collector gets it; and jobs that need no collector."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
import structlog
from pydantic import SecretStr
from starlette.testclient import TestClient
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from api.main import create_app
from fluxfarm import tracing as tracing_module
from fluxfarm.errors import InternalError
from fluxfarm.settings import Settings
from fluxfarm.tracing import OFF, Tracing
from storage.database import Database
from storage.records import Job
from tests.api.samples import body
from tests.making import QUEUE, make_job, read_job
from tests.remote.office import opened
from tests.stubs.fal import FalStub
from tests.stubs.replicate import ReplicateStub
from tests.workers.collector import Collector, Seen, collecting
from tests.workers.desk import OpenDesk
from tests.workers.drawing import klein_worker
from workers.pipeline import Pipeline
from workers.worker import RenderWorker

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"  # of the specification
PHASES = ["load", "encode_prompt", "render", "encode", "upload"]
Start = Callable[[Settings], RenderWorker]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


def traced(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"otlp_url": url, "otlp_headers": SecretStr("x-key=se%2Ccret")})


@contextmanager
def calling(settings: Settings, api_key: str) -> Iterator[TestClient]:
    with TestClient(create_app(settings), headers={"Authorization": f"Bearer {api_key}"}) as client:
        yield client


def post(api: TestClient, headers: dict[str, str] | None = None, **changes: Any) -> UUID:
    reply = api.post("/v1/jobs", json=body({"prompt": "an ultramarine walrus"}, **changes), headers=headers)
    assert reply.status_code == 202, reply.text
    return UUID(reply.json()["aiRecord"]["uuid"])


def names_below(spans: list[Seen], parent: Seen) -> list[str]:
    return [one.name for one in spans if one.parent == parent.span]


def test_one_trace_leads_from_the_post_to_the_webhook(
    collector: Collector, local: Settings, start: Start, klein: Pipeline, desk: OpenDesk, api_key: str
) -> None:
    settings = traced(local, collector.url)
    worker = klein_worker(start(settings), klein)
    with desk() as open_:
        with calling(settings, api_key) as api:
            uuid = post(api, {"traceparent": CALLER}, webhook=open_.endpoint.id)
            assert api.get(f"/v1/jobs/{uuid}").json()["aiRecord"]["status"] == "QUEUED"
        with capture_logs(processors=[merge_contextvars]) as lines:
            assert worker.handle(QUEUE, uuid) == "SUCCESS"
        assert [one["trace_id"] for one in lines if one["event"] == "job_finished"] == [CALLER[3:35]]
        worker.tracing.close()
        open_.settings = settings
        sender = open_.sender()
        assert sender.handle(open_.delivery().id) == "delivered"
        sender._tracing.close()

    spans = collector.spans()
    assert {one.trace for one in spans} == {CALLER[3:35]}
    called = collector.one("POST /v1/jobs")
    assert (called.part, called.parent) == ("fluxfarm-api", CALLER[36:52])
    assert called.told == {
        "http.request.method": "POST",
        "http.route": "/v1/jobs",
        "http.response.status_code": 202,
    }
    assert names_below(spans, called) == ["queue", "attempt", "webhook"]
    attempt, waited, told = collector.one("attempt"), collector.one("queue"), collector.one("webhook")
    assert attempt.part == "fluxfarm-worker"
    assert attempt.told["fluxfarm.job.uuid"] == str(uuid)
    assert names_below(spans, attempt) == PHASES
    assert waited.seconds[1] == pytest.approx(attempt.seconds[0], abs=0.001)
    for name in PHASES:
        begun, ended = collector.one(name).seconds
        assert attempt.seconds[0] - 0.01 <= begun <= ended <= attempt.seconds[1] + 0.01
    assert (told.part, told.told["http.response.status_code"]) == ("fluxfarm-webhooks", 204)
    assert not any(one.failed for one in spans)
    sent = b"".join(collector.bodies)
    for secret in (b"walrus", api_key.encode(), b"s3cr3t", b"hooks.example", open_.secret.encode()):
        assert secret not in sent
    assert {one["x-key"] for one in collector.headers} == {"se,cret"}


def test_a_retry_and_the_calls_of_providers_are_in_the_same_trace(
    collector: Collector, settings: Settings, database: Database, api_key: str
) -> None:
    own = traced(settings, collector.url)
    with opened(own, database, api_key, FalStub(), ReplicateStub()) as office:
        office.stubs["fal"].plan.append("internal")
        assert office.render()["status"] == "SUCCESS"
    spans = collector.spans()
    assert len({one.trace for one in spans}) == 1
    called = collector.one("POST /v1/jobs")
    assert names_below(spans, called) == ["queue", "attempt", "attempt"]
    first, second = [one for one in spans if one.name == "attempt"]
    assert (first.told["error.type"], second.failed) == ("provider_failed", False)
    failed, fine = collector.one("call fal"), collector.one("call replicate")
    assert (failed.parent, failed.told["error.type"]) == (first.span, "provider_failed")
    assert (fine.parent, fine.failed) == (second.span, False)
    assert fine.told["gen_ai.request.model"] == "black-forest-labs/flux-2-dev"
    assert b"red fox" not in b"".join(collector.bodies)


@pytest.mark.parametrize("state", ["down", "silent"])
def test_a_job_needs_no_collector(
    state: str,
    local: Settings,
    start: Start,
    klein: Pipeline,
    api_key: str,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing_module, "TIMEOUT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if state == "down":
            listener.close()
            url = "http://127.0.0.1:9"
        else:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"  # takes connections and says nothing
        settings = traced(local, url)
        worker = klein_worker(start(settings), klein)
        with calling(settings, api_key) as api:
            began = time.monotonic()
            uuid = post(api)
            assert worker.handle(QUEUE, uuid) == "SUCCESS"
            took = time.monotonic() - began
        with database.transaction() as session:
            spent = sum(session.get_one(Job, uuid).attempts[0].timings.values())
        assert took < spent + 2.0
        began = time.monotonic()
        worker.tracing.close()
        assert time.monotonic() - began < 2.0


def test_what_is_logged_names_the_trace(collector: Collector, settings: Settings) -> None:
    tracing = Tracing.from_settings(traced(settings, collector.url), "worker")
    span = tracing.begin("attempt", parent=CALLER)
    with capture_logs(processors=[merge_contextvars]) as lines:
        with span.inside():
            structlog.get_logger().warning("inside")
        structlog.get_logger().warning("outside")
    span.end("render_failed")
    span.end()
    tracing.close()
    assert [(line["event"], line.get("trace_id")) for line in lines] == [("inside", CALLER[3:35]), ("outside", None)]
    assert collector.one("attempt").told == {"error.type": "render_failed"}


@pytest.mark.parametrize("given", ["", "nonsense", CALLER.replace("0", "f"), f"{CALLER[:-2]}00"])
def test_only_a_true_traceparent_is_followed(collector: Collector, settings: Settings, given: str) -> None:
    tracing = Tracing.from_settings(traced(settings, collector.url), "api")
    span = tracing.begin("POST", "SERVER", parent=given)
    span.end()
    tracing.close()
    if given.endswith("-00"):  # its maker does not sample: the context is handed on, and nothing is kept
        assert span.traceparent is not None
        assert (span.traceparent[3:35], span.traceparent[-2:]) == (CALLER[3:35], "00")
        assert collector.bodies == []
    else:
        assert collector.one("POST").parent == ""


def test_without_a_collector_nothing_of_it_is_loaded(database: Database, settings: Settings, job: Job) -> None:
    tracing = Tracing.from_settings(settings, "api")
    assert tracing.begin("POST", parent=CALLER) is OFF
    assert OFF.child("load") is OFF
    assert read_job(database, job).traceparent is None
    code = (
        "import sys\nfrom fluxfarm.settings import Settings\nfrom fluxfarm.tracing import Tracing\n"
        "Tracing.from_settings(Settings(), 'api').begin('POST').end()\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={}, timeout=60)


@pytest.fixture
def job(database: Database, tenant: Any) -> Job:
    return make_job(database, tenant)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"otlp_url": "collector:4318"}, "FLUXFARM_OTLP_URL"),
        ({"otlp_url": "http://me:s3cr3t@collector"}, "FLUXFARM_OTLP_URL"),
        ({"otlp_url": "http://["}, "FLUXFARM_OTLP_URL"),
        ({"otlp_headers": SecretStr("s3cr3t")}, "FLUXFARM_OTLP_HEADERS"),
    ],
)
def test_a_setting_that_cannot_be_read_says_so_at_the_start(
    settings: Settings, changes: dict[str, Any], words: str
) -> None:
    asked = traced(settings, "http://127.0.0.1:9").model_copy(update=changes)
    with pytest.raises(InternalError, match=words) as refused:
        Tracing.from_settings(asked, "api")
    assert "s3cr3t" not in refused.value.message


def test_without_the_packages_the_start_names_the_extra(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(InternalError, match=r"fluxfarm\[tracing\]"):
        Tracing.from_settings(traced(settings, "http://127.0.0.1:9"), "api")
