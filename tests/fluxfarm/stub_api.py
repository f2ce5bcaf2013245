"""A small farm on loopback that speaks the native contract, for tests of the client and of the command line."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, cast
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

from fluxfarm.airecord import AiRecord, AiRecordDetail, AttemptRecord, Links, Problem, Progress
from fluxfarm.errors import Conflict, FluxfarmError, NotFound, Unauthorized
from fluxfarm.jobs import JobState, JobType, Lane

KEY: Final = "ff_live_" + "k" * 36
NOW: Final = datetime(2026, 3, 27, 10, 0, tzinfo=UTC)
STEPS: Final = 8
SMALL: Final = "fluxfarm/flux-2-klein-small"


def picture(n: int) -> bytes:
    """What the stub's object store holds as picture n."""
    return b"RIFF-picture-%d" % n


@dataclass(frozen=True)
class Call:
    """A request that arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its JSON body."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """An answer; None as status drops the connection instead."""

    status: int | None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def json_reply(value: object, status: int = 200) -> Reply:
    """An answer of JSON."""
    return Reply(status, json.dumps(value).encode(), {"content-type": "application/json"})


def problem(error: FluxfarmError, headers: Mapping[str, str] | None = None) -> Reply:
    """An answer of problem+json, as the API words it."""
    body = {"type": f"urn:fluxfarm:problem:{error.code}", "title": error.code, "status": error.status}
    body |= {"detail": error.message, "code": error.code, "param": error.param, "retryable": error.retryable}
    kind = {"content-type": "application/problem+json"}
    return Reply(error.status, json.dumps(body).encode(), kind | dict(headers or {}))


def status_event(number: int, status: JobState) -> bytes:
    """A status event on the wire."""
    return f'id: {number}\nevent: status\ndata: {{"status": "{status}"}}\n\n'.encode()


def progress_event(number: int, step: int) -> bytes:
    """A progress event on the wire."""
    return f'id: {number}\nevent: progress\ndata: {{"step": {step}, "steps": {STEPS}}}\n\n'.encode()


def wire(record: AiRecord) -> dict[str, Any]:
    """The record as JSON."""
    return record.model_dump(mode="json", by_alias=True)


def _model(slug: str, *, local: bool, ready: bool) -> dict[str, Any]:
    return {"id": slug, "name": slug.upper(), "licence": "Apache-2.0", "local": local, "ready": ready}


class StubFarm:
    """Jobs end at once as ``outcome`` says; None leaves them running until they are canceled."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.jobs: dict[UUID, AiRecord] = {}
        self.models = [
            _model("black-forest-labs/flux-2-dev", local=False, ready=False),
            _model("fluxfarm/flux-2-small", local=True, ready=False),
            _model(SMALL, local=True, ready=True),
        ]
        self.outcome: JobState | None = JobState.SUCCESS
        self.error: Problem | None = None
        self.holds = True  #: long polls are held until the job ends
        self.meddle: Callable[[Call], object] = lambda _: None  #: runs before each reply
        self.cut_events_after: int | None = None  #: drop each event stream after so many events
        self._replies: dict[tuple[str, str], list[Reply]] = {}
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.farm = self  # type: ignore[attr-defined]
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.store_url = self.url

    @contextmanager
    def running(self) -> Iterator[StubFarm]:
        """Serve until the block ends."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def next(self, method: str, path: str, *replies: Reply) -> None:
        """Answer the next calls of this method and path so, once each."""
        self._replies.setdefault((method, path), []).extend(replies)

    def seen(self, method: str, path: str = "") -> list[Call]:
        """The calls of this method whose path begins so."""
        return [call for call in self.calls if call.method == method and call.path.startswith(path)]

    def wait_for(self, method: str, suffix: str) -> bool:
        """Whether such a call arrives within 10 s."""

        def there() -> bool:
            return any(call.method == method and call.path.endswith(suffix) for call in self.calls)

        with self._changed:
            return self._changed.wait_for(there, timeout=10)

    def add_job(self, prompt_object: dict[str, Any], **fields: Any) -> AiRecord:
        """A job as it is right after its 202."""
        uuid = uuid4()
        job = f"{self.url}/v1/jobs/{uuid}"
        values: dict[str, Any] = {
            "uuid": uuid,
            "model": SMALL,
            "type": JobType.IMAGE_GENERATOR,
            "status": JobState.QUEUED,
            "created_at": NOW,
            "ai_record_detail": AiRecordDetail(prompt_object=prompt_object, result_object=[]),
            "temporary_url": None,
            "temporary_urls": [],
            "progress": Progress(step=0, steps=STEPS),
            "attempts": [],
            "error": None,
            "cost": Decimal(0),
            "links": Links(
                self=job, cancel=f"{job}/cancel", events=f"{job}/events", explain=f"{job}/explain", assets=[]
            ),
            "lane": Lane.STANDARD,
            "campaign": None,
            "tags": [],
            "external_id": None,
            "retry_of": None,
            "deadline": None,
            "started_at": None,
            "finished_at": None,
        }
        self.jobs[uuid] = AiRecord(**(values | fields))
        return self.jobs[uuid]

    def finish(self, uuid: UUID, status: JobState, error: Problem | None = None) -> AiRecord:
        """End the job."""
        record = self.jobs[uuid]
        asked = record.ai_record_detail.prompt_object
        n = int(asked.get("n", 1)) if status is JobState.SUCCESS else 0
        keys = [f"tenant/{uuid}/1/{i}.{asked.get('output_format', 'webp')}" for i in range(n)]
        links = [f"{self.store_url}/objects/{i}?signature=secret" for i in range(n)]
        attempt = AttemptRecord(
            number=1,
            provider="local",
            worker="w1",
            model_revision=None,
            status=status,
            seeds=[7],
            effective={},
            ignored=[],
            timings={},
            cost=None,
            error=error,
            started_at=NOW,
            ended_at=NOW,
        )
        changes = {
            "status": status,
            "error": error,
            "attempts": [attempt],
            "progress": Progress(step=STEPS if n else 0, steps=STEPS),
            "temporary_url": links[0] if links else None,
            "temporary_urls": links,
            "ai_record_detail": AiRecordDetail(prompt_object=asked, result_object=keys),
            "finished_at": NOW,
        }
        with self._changed:
            self.jobs[uuid] = record.model_copy(update=changes)
            self._changed.notify_all()
        return self.jobs[uuid]

    def wait_final(self, uuid: UUID, seconds: float) -> bool:
        """Whether the job ends within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.jobs[uuid].status.is_final, timeout=seconds)

    def answer(self, call: Call) -> Reply:
        """The reply to a call; an event stream has an empty body here."""
        with self._changed:
            self.calls.append(call)
            self._changed.notify_all()
        self.meddle(call)
        scripted = self._replies.get((call.method, call.path))
        if scripted:
            return scripted.pop(0)
        try:
            return self._route(call)
        except FluxfarmError as error:
            return problem(error)

    def events(self, uuid: UUID, last: int) -> Iterator[bytes]:
        """The events after ``last``; the stream stays open until the job ends."""
        begun = [status_event(1, JobState.QUEUED), status_event(2, JobState.RUNNING)]
        begun += [progress_event(2 + step, step) for step in range(1, STEPS + 1)]
        yield from begun[last:]
        self.wait_final(uuid, 20)
        if last <= len(begun):
            yield status_event(len(begun) + 1, self.jobs[uuid].status)

    def _route(self, call: Call) -> Reply:
        parts = call.path.strip("/").split("/")
        if parts[0] == "objects":
            return Reply(200, picture(int(parts[1])), {"content-type": "image/webp"})
        if call.headers.get("authorization") != f"Bearer {KEY}":
            raise Unauthorized("The API key is missing or wrong.")
        if parts[:2] == ["v1", "jobs"] and len(parts) > 2:
            return self._retry_failed() if parts[2] == "retry" else self._job(call, UUID(parts[2]))
        match (call.method, call.path):
            case ("POST", "/v1/jobs"):
                return self._create(call)
            case ("GET", "/v1/jobs"):
                return json_reply({"data": [wire(job) for job in self.jobs.values()], "nextCursor": None})
            case ("POST", "/v1/references"):
                return json_reply({"id": f"ref_{len(self.seen('POST', '/v1/references'))}", "width": 8}, 201)
            case ("GET", "/v1/models"):
                return json_reply({"data": self.models})
        raise NotFound("There is no such path.")

    def _create(self, call: Call) -> Reply:
        body = call.json
        record = self.add_job(body["promptObject"], model=body["model"], type=JobType(body["type"]))
        if self.outcome is not None:
            self.finish(record.uuid, self.outcome, self.error)
        return json_reply({"aiRecord": wire(record)}, 202)

    def _retry(self, old: AiRecord) -> AiRecord:
        if old.status not in (JobState.FAILED, JobState.CANCELED):
            raise Conflict(f"Job {old.uuid} is {old.status}.")
        return self.add_job(old.ai_record_detail.prompt_object, retry_of=old.uuid)

    def _retry_failed(self) -> Reply:
        done = {job.retry_of for job in self.jobs.values()}
        failed = [job for job in self.jobs.values() if job.status is JobState.FAILED and job.uuid not in done]
        made = [str(self._retry(job).uuid) for job in failed]
        return json_reply({"retried": len(made), "jobs": made, "skipped": [], "nextCursor": None}, 202)

    def _job(self, call: Call, uuid: UUID) -> Reply:
        if uuid not in self.jobs:
            raise NotFound(f"There is no job {uuid}.")
        if call.path.endswith("/events"):
            return Reply(200)
        if call.method == "DELETE":
            del self.jobs[uuid]
            return Reply(204)
        if call.path.endswith("/retry"):
            return json_reply({"aiRecord": wire(self._retry(self.jobs[uuid]))}, 202)
        if call.method == "POST":
            if self.jobs[uuid].status.is_final:
                raise Conflict(f"Job {uuid} is {self.jobs[uuid].status}.")
            error = Problem(code="canceled", message="The caller stopped the job.", retryable=False)
            return json_reply({"aiRecord": wire(self.finish(uuid, JobState.CANCELED, error))})
        self.wait_final(uuid, float(call.query.get("wait", 0)) if self.holds else 0)
        return json_reply({"aiRecord": wire(self.jobs[uuid])})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        reply = self._farm.answer(Call(self.command, parts.path, query, headers, body))
        if reply.status is None:
            self.close_connection = True
        elif parts.path.endswith("/events") and reply.status == 200 and not reply.body:
            self._stream(UUID(parts.path.split("/")[3]), int(headers.get("last-event-id", 0)))
        else:
            self._send(reply.status, reply)

    def _send(self, status: int, reply: Reply) -> None:
        self.send_response(status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("content-length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def _stream(self, uuid: UUID, last: int) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for sent, event in enumerate(self._farm.events(uuid, last)):
            if sent == self._farm.cut_events_after:
                return
            self.wfile.write(event)

    @property
    def _farm(self) -> StubFarm:
        return cast("StubFarm", self.server.farm)  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815
