"""A collector of OpenTelemetry on loopback: takes what comes as OTLP over HTTP in protobuf, and keeps it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Seen:
    """One span, as it came."""

    part: str  #: the process that made it
    name: str
    trace: str
    span: str
    parent: str
    seconds: tuple[float, float]
    told: dict[str, Any]
    failed: bool


@dataclass
class Collector:
    """What came."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def spans(self) -> list[Seen]:
        found = []
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                part = _values(resource.resource.attributes)["service.name"]
                found += [_seen(part, span) for scope in resource.scope_spans for span in scope.spans]
        return sorted(found, key=lambda one: one.seconds)

    def one(self, name: str) -> Seen:
        (found,) = [span for span in self.spans() if span.name == name]
        return found


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def _seen(part: str, span: Any) -> Seen:
    return Seen(
        part=part,
        name=span.name,
        trace=span.trace_id.hex(),
        span=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        seconds=(span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9),
        told=_values(span.attributes),
        failed=span.status.code == span.status.STATUS_CODE_ERROR,
    )


@contextmanager
def collecting() -> Iterator[Collector]:
    made = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            fine = self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
            if fine:
                made.bodies.append(body)
                made.headers.append({name.lower(): value for name, value in self.headers.items()})
            reply = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if fine else 400)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join(5)
