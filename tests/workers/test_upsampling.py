"""Prompts rewritten before the render: by a chat endpoint, by the text encoder, or said to be as they were."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from fluxfarm.airecord import Problem
from fluxfarm.jobs import JobState
from fluxfarm.settings import Settings
from fluxfarm.sources import parse_sources
from storage.database import Database
from storage.records import Tenant
from storage.repository import attempts
from tests.making import MODEL, QUEUE, make_job, make_request, must_claim, read_job
from workers.pipeline import Pipeline
from workers.pipeline_upsampling import can_upsample, upsample
from workers.providers.local import LocalProvider
from workers.worker import RenderWorker

REVISED = "A lighthouse on a cliff at dusk, its beam over a calm sea, soft violet light."


class Chat(ThreadingHTTPServer):
    """An OpenAI-compatible chat endpoint on loopback."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = status, json.dumps(body).encode()
        self.asked: list[tuple[str, str, dict[str, Any]]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Chat

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, self.headers["authorization"], asked))
        status, body = self.server.reply
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _local(worker: RenderWorker) -> LocalProvider:
    assert isinstance(worker.provider, LocalProvider)
    return worker.provider


@contextmanager
def chatting(status: int, body: Any) -> Iterator[Chat]:
    with Chat(status, body) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def answer(text: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


@pytest.fixture
def work(settings: Settings, klein: Pipeline) -> Iterator[Callable[[str], RenderWorker]]:
    """A worker whose settings name this chat endpoint."""
    started: list[RenderWorker] = []

    def start(url: str) -> RenderWorker:
        named = {
            "upsampling_url": url,
            "upsampling_model": "writer",
            "upsampling_key": type(settings.api_key)("sk-chat"),
            "models": parse_sources(MODEL),
            "device": "cpu",
        }
        worker = RenderWorker(settings.model_copy(update=named), (QUEUE,), slots=1)
        _local(worker).residents.pipelines[MODEL] = klein
        worker.start()
        started.append(worker)
        return worker

    yield start
    for worker in started:
        _local(worker).residents.pipelines.pop(MODEL, None)  # the session's own: it stays open
        worker.stop()


def test_a_chat_endpoint_writes_and_the_record_keeps_it(
    work: Callable[[str], RenderWorker], database: Database, tenant: Tenant
) -> None:
    job = make_job(database, tenant, request=make_request(prompt_upsampling=True))
    with chatting(200, answer(f"  {REVISED}\n")) as chat:
        worker = work(f"http://127.0.0.1:{chat.server_port}/v1/")
        assert worker.handle(QUEUE, job.uuid) == JobState.SUCCESS
    done = read_job(database, job)
    assert done.revised_prompt == REVISED
    assert done.attempts[0].ignored == []
    ((path, key, asked),) = chat.asked
    assert (path, key, asked["model"], asked["seed"]) == ("/v1/chat/completions", "Bearer sk-chat", "writer", 7)
    assert asked["messages"][1] == {"role": "user", "content": "a lighthouse at dusk"}


def test_a_later_attempt_renders_what_the_first_one_wrote(database: Database, tenant: Tenant) -> None:
    job = make_job(database, tenant, request=make_request(prompt_upsampling=True))
    claim = must_claim(database, job.uuid)
    with database.transaction() as session:
        assert attempts.revise(session, claim, REVISED)
        assert attempts.give_back(session, claim)
        assert not attempts.revise(session, claim, "too late")
    again = must_claim(database, job.uuid)
    assert (again.request.prompt, again.request.prompt_upsampling) == (REVISED, False)
    assert read_job(database, job).render_request.prompt == "a lighthouse at dusk"
    with database.transaction() as session:
        attempts.fail(session, again, Problem(code="x", message="x", retryable=False), max_attempts=1)


@pytest.mark.parametrize(
    ("status", "body"),
    [(503, {}), (200, {"choices": []}), (200, answer(None)), (200, answer(" ")), (200, answer("\0"))],
)
def test_an_endpoint_that_fails_costs_no_picture(
    work: Callable[[str], RenderWorker], database: Database, tenant: Tenant, status: int, body: dict[str, Any]
) -> None:
    job = make_job(database, tenant, request=make_request(prompt_upsampling=True, steps=1))
    with chatting(status, body) as chat:
        assert work(f"http://127.0.0.1:{chat.server_port}/v1").handle(QUEUE, job.uuid) == JobState.SUCCESS
    done = read_job(database, job)
    assert (done.revised_prompt, done.attempts[0].ignored) == (None, ["prompt_upsampling"])


def test_a_model_that_cannot_says_so(work: Callable[[str], RenderWorker], database: Database, tenant: Tenant) -> None:
    job = make_job(database, tenant, request=make_request(prompt_upsampling=True, steps=1))
    assert work("").handle(QUEUE, job.uuid) == JobState.SUCCESS
    assert read_job(database, job).attempts[0].ignored == ["prompt_upsampling"]


class Processor:
    """What a PixtralProcessor is to ``upsample_prompt`` when there are no pictures; the real one needs torchvision."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def apply_chat_template(self, messages: Any, **more: Any) -> Any:
        return self.tokenizer.apply_chat_template(messages, **more | {"max_length": 256})


def test_the_text_encoder_of_dev_writes_by_the_seed(dev_folder: Any) -> None:
    import torch  # noqa: PLC0415

    pipeline = Pipeline.load(dev_folder, device="cpu", keep_words=True)
    pipe = pipeline._pipe
    assert not can_upsample(pipe)
    pipe.tokenizer = Processor(pipe.tokenizer)
    assert can_upsample(pipe)
    generate = pipe.text_encoder.generate
    pipe.text_encoder.generate = lambda **asked: generate(**asked | {"max_new_tokens": 12, "temperature": 1.0})
    before = torch.random.get_rng_state()
    first, again, other = (upsample(pipe, "a fox", seed, ()) for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.random.get_rng_state(), before)
    pipeline.close()
