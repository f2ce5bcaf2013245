"""Traces by OpenTelemetry, from the call that makes a job to its webhook; without a collector nothing of it is loaded.

A trace travels as W3C's ``traceparent``, in the row of its job. Spans tell uuids, models, numbers and codes; nobody
may give them a prompt, a key, an address with secrets or a picture. They are sent in batches by a thread of the SDK,
and dropped when the collector does not take them: no job ever waits for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal, Self
from urllib.parse import unquote, urlsplit

import structlog

from fluxfarm import __version__
from fluxfarm.errors import InternalError
from fluxfarm.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as Recorded

TIMEOUT: Final = 3.0  #: seconds for one batch, tries included; also what the end of a process waits for the last one
INTERVAL: Final = 2.0  #: seconds between two batches
WAITING: Final = 4096  #: spans that wait to be sent; more are dropped
PATH: Final = "/v1/traces"
VERSION: Final = "00"  #: of ``traceparent``

Attributes = Mapping[str, str | int | float]
Kind = Literal["INTERNAL", "SERVER", "CLIENT", "CONSUMER"]

_current: ContextVar[str | None] = ContextVar("traceparent", default=None)


def current() -> str | None:
    """The ``traceparent`` of the span that is worked in."""
    return _current.get()


class Span:
    """One stretch of a trace, or of none: then all of this does nothing."""

    def __init__(self, tracing: Tracing | None = None, recorded: Recorded | None = None) -> None:
        """``recorded`` is the SDK's own."""
        self._tracing, self._recorded = tracing, recorded
        self.traceparent: Final = None if recorded is None else _traceparent(recorded)

    def child(
        self, name: str, kind: Kind = "INTERNAL", *, at: float | None = None, told: Attributes | None = None
    ) -> Span:
        """A stretch of this one; ``at`` is its begin in seconds since 1970, now if none is given."""
        if self._tracing is None:
            return self
        return self._tracing.begin(name, kind, parent=self.traceparent, at=at, told=told)

    def inside(self) -> AbstractContextManager[object]:
        """What is logged and made meanwhile belongs to this trace; the span goes on afterwards."""
        return nullcontext() if self.traceparent is None else _inside(self.traceparent)

    def tell(self, told: Attributes) -> None:
        """Say more of it, under OpenTelemetry's names, or ``fluxfarm.`` where it has none."""
        if self._recorded is not None:
            self._recorded.set_attributes(dict(told))

    def answered(self, method: str, route: str, status: int) -> None:
        """It was a call of the API: which one, and what came of it; a 5xx counts as an error."""
        if self._recorded is None:
            return
        self._recorded.update_name(f"{method} {route}")
        self.tell({"http.request.method": method, "http.route": route, "http.response.status_code": status})
        if status >= 500:  # noqa: PLR2004
            self.end(str(status))

    def end(self, error: str | None = None, *, at: float | None = None) -> None:
        """It is over; only the first end counts. ``error`` is a stable code, never a message."""
        recorded, self._recorded = self._recorded, None
        if recorded is None:
            return
        if error is not None:
            from opentelemetry.trace import Status, StatusCode

            recorded.set_attribute("error.type", error)
            recorded.set_status(Status(StatusCode.ERROR))
        recorded.end(_nanoseconds(at))


OFF: Final = Span()


class Tracing:
    """Makes the spans of one process."""

    def __init__(self, provider: TracerProvider | None) -> None:
        """None: tracing is off, and every span is ``OFF``."""
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer("fluxfarm", __version__)

    @classmethod
    def from_settings(cls, settings: Settings, part: str) -> Self:
        """``part`` is what the process is: api, worker, webhooks.

        Raises:
            InternalError: OpenTelemetry is asked for and not installed, or the settings cannot be read.
        """
        if not settings.otlp_url:
            return cls(None)
        return cls(_provider(_endpoint(settings.otlp_url), _headers(settings.otlp_headers.get_secret_value()), part))

    def begin(
        self,
        name: str,
        kind: Kind = "INTERNAL",
        *,
        parent: str | None = None,
        at: float | None = None,
        told: Attributes | None = None,
    ) -> Span:
        """A new span below ``parent``, a ``traceparent``; without one, or with one that is none, a new trace."""
        if self._tracer is None:
            return OFF
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {} if parent is None else {"traceparent": parent}
        recorded = self._tracer.start_span(
            name,
            TraceContextTextMapPropagator().extract(carrier, Context()),
            SpanKind[kind],
            dict(told or {}),
            start_time=_nanoseconds(at),
        )
        return Span(self, recorded)

    def close(self) -> None:
        """Send what waits, for ``TIMEOUT`` seconds at most."""
        if self._provider is not None:
            last = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
            last.start()
            last.join(TIMEOUT)


@contextmanager
def _inside(traceparent: str) -> Iterator[None]:
    token = _current.set(traceparent)
    try:
        with structlog.contextvars.bound_contextvars(trace_id=traceparent.split("-")[1]):
            yield
    finally:
        _current.reset(token)


def _traceparent(recorded: Recorded) -> str:
    context = recorded.get_span_context()
    return f"{VERSION}-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"


def _nanoseconds(at: float | None) -> int:
    return time.time_ns() if at is None else round(at * 1e9)


def _endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in {"http", "https"} and parts.hostname and not {*"@?#"} & {*url}
    except ValueError:
        fine = False
    if not fine:
        raise InternalError("FLUXFARM_OTLP_URL must be an http(s) address; keys belong into FLUXFARM_OTLP_HEADERS.")
    return url if url.endswith(PATH) else url.rstrip("/") + PATH


def _headers(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = pair.partition("=")
        if not name.strip() or not equals:
            raise InternalError("FLUXFARM_OTLP_HEADERS must be `name=value`, separated by commas.")
        found[name.strip()] = unquote(value.strip())
    return found


def _provider(endpoint: str, headers: dict[str, str], part: str) -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        told = "FLUXFARM_OTLP_URL is set, and OpenTelemetry is not installed: pip install 'fluxfarm[tracing]'."
        raise InternalError(told) from error
    names = {"service.namespace": "fluxfarm", "service.name": f"fluxfarm-{part}", "service.version": __version__}
    provider = TracerProvider(resource=Resource.create(names), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint, headers=headers, timeout=TIMEOUT)
    provider.add_span_processor(BatchSpanProcessor(exporter, WAITING, INTERVAL * 1000))
    return provider
