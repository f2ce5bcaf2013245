"""The typed client: a few methods over the farm's HTTP calls, for scripts and for the command line."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, Unpack
from urllib.parse import quote
from uuid import UUID

from fluxfarm.airecord import AiRecord
from fluxfarm.client_access import Access, uuid_of
from fluxfarm.client_campaigns import Campaigns
from fluxfarm.client_events import JobEvent, parse
from fluxfarm.client_money import Money
from fluxfarm.client_options import Image, RenderOptions, body_of
from fluxfarm.client_place import locate, read_settings
from fluxfarm.client_replies import (
    DeliveryReply,
    ModelReply,
    Page,
    ReferenceReply,
    Rendered,
    RetriedReply,
    SkippedJob,
    VerifyReply,
    WebhookReply,
    WorkerReply,
    read_page,
    read_record,
    read_reply,
    read_rows,
)
from fluxfarm.client_transport import FIRST_DELAY, LONGEST_DELAY, Transport
from fluxfarm.errors import Conflict, InvalidReference, LinkExpired, NoRoute, Unavailable
from fluxfarm.jobs import JobState
from fluxfarm.problems import raise_for_record
from fluxfarm.settings import Settings

__all__ = ["Client", "JobEvent", "Page", "RenderOptions", "Rendered"]

HELD: Final = 25.0  #: seconds that one long poll is held; below the 30 s of the usual proxies
OUTAGE: Final = 30.0  #: seconds without the farm that a wait or an event stream lives through
PATIENCE: Final = 1.0  #: seconds that other GETs are repeated when the connection breaks
KNOWN: Final = ("ref_", "https://", "http://", "data:")  #: how a reference begins that is not a file


class Client(Access, Money):
    """One farm, seen from a program; use it as a context manager, or call ``close``.

    Every error is a leaf of ``fluxfarm.errors``: the one that the farm raised, or ``Unavailable`` when no farm answers.
    Only GETs are repeated, and what has an idempotency key. Times are seconds.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        patience: float = PATIENCE,
        settings: Settings | None = None,
    ) -> None:
        """``timeout`` bounds one read or write, ``patience`` a repetition when the connection breaks.

        Raises:
            Unavailable: no farm is named and none runs here.
            InvalidField: the URL or a setting does not fit.
        """
        place, key = locate(url, api_key, settings or read_settings())
        self._transport = Transport(place, key, timeout=timeout, patience=patience)
        self.campaigns = Campaigns(self._transport, lambda path: self.upload(path).id)

    @property
    def url(self) -> str:
        """Address of the farm."""
        return self._transport.url

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- making jobs ---------------------------------------------------------------------------------------------

    def prepare(self, prompt: str, **options: Unpack[RenderOptions]) -> dict[str, Any]:
        """The body of ``POST /v1/jobs``; files among ``images`` are uploaded on the way."""
        unknown = options.keys() - RenderOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"no such option: {', '.join(sorted(unknown))}; more promptObject fields go into 'extra'")
        references = [self._reference(image) for image in options.get("images", ())]
        return body_of(prompt, options.get("model") or self.default_model(), references, options)

    def submit(self, prompt: str, *, idempotency_key: str | None = None, **options: Unpack[RenderOptions]) -> AiRecord:
        """Hand in a job; it is committed when this returns.

        It is sent once: on ``Unavailable`` look before repeating. With an ``idempotency_key`` it is repeated here when
        the connection breaks, and may be repeated by the caller: the same call with the same key is one job. Files
        are uploaded anew each time, which makes another call of it: name references by their ids instead.

        Raises:
            BadRequest: the leaf tells what does not fit.
            ExternalIdTaken: another job has the ``external_id``; ``job`` is its uuid.
            IdempotencyKeyReused: the key came before with another call.
        """
        return self.submit_prepared(self.prepare(prompt, **options), idempotency_key=idempotency_key)

    def submit_prepared(self, body: Mapping[str, object], *, idempotency_key: str | None = None) -> AiRecord:
        """Hand in what ``prepare`` made."""
        return read_record(self._transport.post("/v1/jobs", body, key=idempotency_key))

    def render(self, prompt: str, *, timeout: float | None = 600.0, **options: Unpack[RenderOptions]) -> Rendered:
        """Submit, wait and download.

        Raises:
            RenderError: the job failed or was canceled.
            Conflict: it is not done after ``timeout`` seconds; it goes on.
        """
        record = self.wait(self.submit(prompt, **options).uuid, timeout=timeout, check=True)
        return Rendered(record, [self.download(record, n) for n in range(len(record.temporary_urls))])

    def upload(self, image: Path | bytes) -> ReferenceReply:
        """Keep a picture at the farm, to be named in ``images``; its file name stays here.

        Raises:
            InvalidReference: the file cannot be read, or it is no picture that the farm takes.
        """
        content = image if isinstance(image, bytes) else _content(image)
        files = {"file": ("reference", content, "application/octet-stream")}
        return read_reply(ReferenceReply, self._transport.send("POST", "/v1/references", files=files))

    def verify(self, image: Path | bytes) -> VerifyReply:
        """Where a picture comes from, by its signed manifest, and whether it was changed since.

        Raises:
            InvalidReference: the file cannot be read.
            UnsupportedMediaType: it is no picture of a format that the farm makes.
        """
        content = image if isinstance(image, bytes) else _content(image)
        files = {"file": ("picture", content, "application/octet-stream")}
        return read_reply(VerifyReply, self._transport.send("POST", "/v1/verify", files=files))

    def default_model(self) -> str:
        """The first model that a worker of the farm renders now, else the first that the farm is set up for.

        Raises:
            NoRoute: there is none.
        """
        local = sorted((model for model in self.models() if model.local), key=lambda model: not model.ready)
        if local:
            return local[0].id
        raise NoRoute(f"The farm at {self.url} renders no model itself; name one of 'fluxfarm models'.", param="model")

    def _reference(self, image: Image) -> str:
        if isinstance(image, str) and image.startswith(KNOWN):
            return image
        return self.upload(Path(image) if isinstance(image, str) else image).id

    # --- watching and stopping them ------------------------------------------------------------------------------

    def get(self, uuid: UUID | str, wait: float = 0) -> AiRecord:
        """The record; with ``wait`` the farm holds the reply until the job ends, at most 60 seconds."""
        held = int(min(wait, 60))
        params = {"wait": held} if held > 0 else None
        return read_record(self._transport.get(_path(uuid), params, held=held))

    def wait(self, uuid: UUID | str, timeout: float | None = 600.0, *, check: bool = False) -> AiRecord:
        """Long-poll until the job ends; None waits as long as it takes. Short outages of the farm are lived through.

        Raises:
            Conflict: the job is not done after ``timeout`` seconds; it goes on.
            RenderError: with ``check``, when it failed or was canceled.
        """
        deadline = time.monotonic() + timeout if timeout is not None else float("inf")
        while True:
            asked = time.monotonic()
            held = max(0, int(min(HELD, deadline - asked)))
            record = read_record(self._transport.get(_path(uuid), {"wait": held}, held=held, patience=OUTAGE))
            if record.status.is_final:
                return raise_for_record(record) if check else record
            if time.monotonic() >= deadline - FIRST_DELAY:
                raise Conflict(f"Job {record.uuid} is still {record.status} after {timeout:g} s; it goes on.")
            # A farm that does not hold the reply back must not be asked in a tight loop.
            time.sleep(max(0.0, min(asked + 0.5, deadline) - time.monotonic()))

    def events(self, uuid: UUID | str, last_event_id: str | None = None) -> Iterator[JobEvent]:
        """What happens to the job, until it ends; a broken stream is taken up after the last event that came.

        Raises:
            Unavailable: the stream cannot be taken up again for 30 s.
        """
        quiet_since, delay = time.monotonic(), FIRST_DELAY
        while True:
            failure, came = "", False
            try:
                for event in self._stream(uuid, last_event_id):
                    came, last_event_id, quiet_since, delay = True, event.id, time.monotonic(), FIRST_DELAY
                    yield event
                    if event.is_last:
                        return
            except Unavailable as error:
                failure = f" ({error.message})"
            if not failure and not came and self.get(uuid).status.is_final:
                return  # its last event was already known
            if time.monotonic() - quiet_since > OUTAGE:
                raise Unavailable(f"The event stream of job {uuid} keeps breaking off{failure}.")
            time.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)

    def _stream(self, uuid: UUID | str, last_event_id: str | None) -> Iterator[JobEvent]:
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        headers |= {"last-event-id": last_event_id} if last_event_id else {}
        with self._transport.stream(f"{_path(uuid)}/events", headers) as response:
            yield from parse(response.iter_bytes())

    def list(
        self,
        *,
        status: JobState | str | None = None,
        campaign: str | None = None,
        tag: str | None = None,
        error: str | None = None,
        external_id: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page:
        """One page of records, the newest first; ``error`` is the code that a job ended with."""
        params = {"status": status, "campaign": campaign, "tag": tag, "error": error, "externalId": external_id}
        return read_page(self._transport.get("/v1/jobs", params | {"cursor": cursor, "limit": limit}))

    def iterate(
        self,
        *,
        status: JobState | str | None = None,
        campaign: str | None = None,
        tag: str | None = None,
        error: str | None = None,
    ) -> Iterator[AiRecord]:
        """Every record that fits, page after page."""
        cursor: str | None = None
        while True:
            page = self.list(status=status, campaign=campaign, tag=tag, error=error, cursor=cursor)
            yield from page.data
            cursor = page.next_cursor
            if cursor is None:
                return

    def cancel(self, uuid: UUID | str) -> AiRecord:
        """Stop the job.

        Raises:
            Conflict: it has already ended.
        """
        return read_record(self._transport.post(f"{_path(uuid)}/cancel"))

    def retry(self, uuid: UUID | str, *, idempotency_key: str | None = None) -> AiRecord:
        """Try a FAILED or CANCELED job again; gives the new job, which has the same seeds.

        Raises:
            Conflict: its state does not allow it.
            AlreadyRetried: it has a retry; ``job`` is its uuid.
            ReferenceGone: a picture that it needs was deleted.
        """
        return read_record(self._transport.post(f"{_path(uuid)}/retry", key=idempotency_key))

    def retry_failed(
        self, *, error: str | None = None, campaign: str | None = None, tag: str | None = None, limit: int | None = None
    ) -> RetriedReply:
        """Try FAILED jobs again, the newest ``limit`` that fit or all, each one once; up to 1,000 in a transaction.

        When it breaks off, repeat it: what was retried is not retried again.
        """
        made: list[UUID] = []
        skipped: list[SkippedJob] = []
        cursor: str | None = None
        while limit is None or len(made) < limit:
            most = None if limit is None else min(limit - len(made), 1000)
            said = {"error": error, "campaign": campaign, "tag": tag, "limit": most, "cursor": cursor}
            sent = {name: value for name, value in said.items() if value is not None}
            done = read_reply(RetriedReply, self._transport.post("/v1/jobs/retry", sent))
            made += done.jobs
            skipped += done.skipped
            cursor = done.next_cursor
            if cursor is None:
                break
        return RetriedReply(jobs=made, skipped=skipped, next_cursor=cursor)

    def delete(self, uuid: UUID | str) -> None:
        """Erase the record, its pictures and its prompt."""
        self._transport.send("DELETE", _path(uuid))

    def download(self, record: AiRecord, n: int = 0) -> bytes:
        """Picture ``n`` of a finished job; an expired link is asked for anew, once.

        Raises:
            Conflict: the job has no such picture.
            StoreUnavailable: the object store gives no whole reply.
        """
        if not 0 <= n < len(record.temporary_urls):
            count = len(record.temporary_urls)
            raise Conflict(f"Job {record.uuid} is {record.status} and has {count} pictures; there is no number {n}.")
        try:
            return self._transport.fetch(record.temporary_urls[n])
        except LinkExpired:
            fresh = self.get(record.uuid)
            if n >= len(fresh.temporary_urls):
                raise
            return self._transport.fetch(fresh.temporary_urls[n])

    # --- the farm itself -----------------------------------------------------------------------------------------

    def models(self) -> Sequence[ModelReply]:
        """The catalogue."""
        return read_rows(ModelReply, self._transport.get("/v1/models"))

    def workers(self) -> Sequence[WorkerReply]:
        """Those that render, as they last said of themselves."""
        return read_rows(WorkerReply, self._transport.get("/v1/workers"))

    def webhooks(self) -> Sequence[WebhookReply]:
        """The endpoints that are told of the ends of jobs, without their secrets."""
        return read_rows(WebhookReply, self._transport.get("/v1/webhooks"))

    def create_webhook(self, url: str) -> WebhookReply:
        """A new endpoint; what verifies its messages is in ``secret``."""
        return read_reply(WebhookReply, self._transport.post("/v1/webhooks", {"url": url}))

    def replay_webhook(self, delivery_id: str) -> DeliveryReply:
        """Send a message again, under the same id.

        Raises:
            NotFound: there is no such delivery.
            Conflict: its endpoint is disabled.
        """
        path = f"/v1/webhooks/deliveries/{quote(delivery_id, safe='')}/replay"
        return read_reply(DeliveryReply, self._transport.post(path))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidReference(f"Cannot read {path}: {reason}.", param="images") from error


def _path(uuid: UUID | str) -> str:
    return f"/v1/jobs/{uuid_of(uuid)}"
