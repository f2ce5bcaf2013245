"""A provider's stand-in: a real HTTP server on loopback that speaks its protocol, with faults to switch on.

A fault is switched on for one request by a word in its prompt, ``[busy]``, for the next submits by ``plan``, and from
another process through ``POST /_stub`` with ``{"plan": ["busy"], "latency": 0.2}``; ``GET /_stub`` tells what arrived.
"""

from __future__ import annotations

import json
import re
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx

from tests.stubs.pictures import draw

KEY: Final = "stub-key-4711"
KEYS: Final = ("authorization", "x-key", "api-key")
WORD: Final = re.compile(r"\[([a-z0-9-]+)\]")


@dataclass(frozen=True)
class Part:
    """A part of a multipart body."""

    name: str
    filename: str | None
    body: bytes


@dataclass(frozen=True)
class Asked:
    """A request that arrived; ``base`` is the address it was sent to."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    base: str

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def parts(self) -> list[Part]:
        kind = self.headers.get("content-type", "")
        if not kind.startswith("multipart/form-data"):
            return []
        head = f"content-type: {kind}\r\n\r\n".encode()
        message: Message = BytesParser(policy=HTTP).parsebytes(head + self.body)
        return [_part(piece) for piece in message.get_payload() if isinstance(piece, Message)]


@dataclass(frozen=True)
class Answer:
    """What goes back; ``status`` None drops the connection instead."""

    status: int | None
    body: Any = b""  #: bytes, or what becomes JSON
    headers: Mapping[str, str] = field(default_factory=dict)


DROPPED: Final = Answer(None)
NOTHING_HERE: Final = Answer(404, {"detail": "Not Found"})

#: faults of the transport, which every provider knows; the call was accepted before each of them
LOST: Final[Mapping[str, Answer]] = {
    "reset": DROPPED,
    "bad-gateway": Answer(502, b"<html>502 Bad Gateway</html>", {"content-type": "text/html"}),
    "garbage": Answer(200, b"{not json"),
    "packed": Answer(200, b"\x1f\x8b", {"content-encoding": "gzip"}),
    "huge": Answer(200, b" " * (3 * 2**20)),
}


@dataclass
class Job:
    """A call that was accepted."""

    id: str
    endpoint: str
    body: dict[str, Any]
    width: int
    height: int
    faults: frozenset[str]
    n: int = 1
    references: int = 0
    webhook: str | None = None
    base: str = ""  #: where it was submitted
    born: float = field(default_factory=time.monotonic)
    polls: int = 0
    canceled: bool = False

    @property
    def seed(self) -> int:
        return int(self.body.get("seed") or 0)


class Stub(ABC):
    """The state of one provider; requests come from many threads."""

    name: str
    faults: Mapping[str, Answer]  #: answers to a submit that is refused

    def __init__(self, latency: float = 0.0) -> None:
        self.latency = latency  #: seconds from a submit to its picture
        self.plan: deque[str] = deque()
        self.asked: list[Asked] = []
        self.jobs: dict[str, Job] = {}  #: what was accepted
        self.leaks: list[Asked] = []  #: requests for a picture that carried a key
        self.submits = 0
        self.tellers: list[threading.Thread] = []
        self.told: list[int] = []  #: what its webhooks were answered
        self.silent = False  #: takes requests and answers none
        self.lock = threading.Lock()

    @property
    def accepted(self) -> int:
        """How many paid calls were taken: each may be charged."""
        return len(self.jobs)

    @property
    def last(self) -> Job:
        return next(reversed(self.jobs.values()))

    @abstractmethod
    def respond(self, asked: Asked) -> Answer:
        """The protocol."""

    def answer(self, asked: Asked) -> Answer:
        if asked.path == "/_stub":
            return self._control(asked)
        with self.lock:
            self.asked.append(asked)
        if self.silent:
            return DROPPED
        if asked.path.startswith("/files/"):
            return self._file(asked)
        return self.respond(asked)

    def faults_of(self, prompt: str) -> frozenset[str]:
        """The faults of a submit: the words in its prompt, and the next of the plan."""
        with self.lock:
            self.submits += 1
            planned = [self.plan.popleft()] if self.plan else []
        return frozenset([*WORD.findall(prompt), *planned])

    def refused(self, faults: frozenset[str]) -> Answer | None:
        return next((self.faults[fault] for fault in sorted(faults) if fault in self.faults), None)

    def accept(self, job: Job, asked: Asked) -> Answer | None:
        """Keep the job; the answer of a fault that loses the reply, if there is one."""
        job.base = asked.base
        with self.lock:
            self.jobs[job.id] = job
        if job.webhook and job.webhook.startswith("http://127.0.0.1:") and not job.faults & {"stuck", "no-hook"}:
            teller = threading.Thread(target=self._tell, args=(job,), name="stub-webhook")
            self.tellers.append(teller)
            teller.start()
        return next((LOST[fault] for fault in sorted(job.faults) if fault in LOST), None)

    def webhook(self, job: Job, now: int) -> tuple[dict[str, str], bytes]:
        """Headers and body of the webhook at the job's end; only fal and Replicate have one that is signed."""
        raise NotImplementedError(f"{self.name} sends no webhook for {job.id} at {now}.")

    def _tell(self, job: Job) -> None:
        """Send the webhook: ``hook-twice``, ``hook-forged`` and ``hook-old`` are its faults."""
        time.sleep(self.latency)
        old = "hook-old" in job.faults
        headers, body = self.webhook(job, int(time.time()) - (301 if old else 0))
        body += b" " if "hook-forged" in job.faults else b""
        assert job.webhook is not None
        for _ in range(2 if "hook-twice" in job.faults else 1):
            with suppress(httpx.HTTPError):
                reply = httpx.post(job.webhook, content=body, headers=headers, trust_env=False, timeout=5)
                self.told.append(reply.status_code)

    def poll(self, job: Job) -> str:
        """``waiting``, ``running`` or ``done``; counts the poll."""
        with self.lock:
            job.polls += 1
        if "stuck" in job.faults:
            return "running"
        if "slow" in job.faults and job.polls <= 2:
            return ("waiting", "running")[job.polls - 1]
        return "done" if time.monotonic() - job.born >= self.latency else "running"

    def picture(self, job: Job) -> bytes:
        """The file of the result, in the provider's own format."""
        return draw(job.width, job.height, f"{job.seed}{job.body.get('prompt', '')}", self.picture_format(job))

    def picture_format(self, job: Job) -> str:
        return "JPEG" if job.body.get("output_format") in {"jpeg", "jpg"} else "PNG"

    def _file(self, asked: Asked) -> Answer:
        """A result: anybody may have it who knows its address, and no key belongs there."""
        if any(name in asked.headers for name in KEYS):
            self.leaks.append(asked)
        job = self.jobs.get(asked.path.removeprefix("/files/").partition("-")[0])
        if job is None or "expired" in job.faults:
            return Answer(403, b"expired")
        body = self.picture(job)
        return Answer(200, body, {"content-type": "application/octet-stream"})

    def _control(self, asked: Asked) -> Answer:
        if asked.method == "POST":
            wish = asked.json
            self.latency = float(wish.get("latency", self.latency))
            self.plan.extend(wish.get("plan", []))
            self.silent = bool(wish.get("silent", self.silent))
        counts = {"submits": self.submits, "accepted": self.accepted, "requests": len(self.asked)}
        return Answer(200, counts | {"leaks": len(self.leaks), "plan": list(self.plan), "latency": self.latency})


def new_id() -> str:
    return uuid4().hex


@contextmanager
def serving(stub: Stub, port: int = 0) -> Iterator[str]:
    """Serve until the end of the block; gives the base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(stub))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name=f"stub-{stub.name}")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        for teller in stub.tellers:
            teller.join()


def _handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def _serve(self) -> None:
            split = urlsplit(self.path)
            length = int(self.headers.get("content-length", "0"))
            asked = Asked(
                method=self.command,
                path=split.path,
                query={name: values[0] for name, values in parse_qs(split.query, keep_blank_values=True).items()},
                headers={name.lower(): value for name, value in self.headers.items()},
                body=self.rfile.read(length),
                base=f"http://{self.headers.get('host')}",
            )
            with suppress(OSError):  # the caller is gone
                self._send(stub.answer(asked))

        def _send(self, answer: Answer) -> None:
            if answer.status is None:
                return  # HTTP/1.0: the connection is closed
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in ({"content-type": "application/json"} | dict(answer.headers)).items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    return Handler


def _part(piece: Message) -> Part:
    name = piece.get_param("name", header="content-disposition")
    body = piece.get_payload(decode=True)
    assert isinstance(body, bytes)
    return Part(str(name), piece.get_filename(), body)
