"""The webhooks process: takes tickets, signs messages and sends them, each attempt by one sender."""

from __future__ import annotations

import secrets
import time
from typing import Final

import structlog

from fluxfarm.errors import DatabaseUnavailable, FluxfarmError, InternalError
from fluxfarm.outbound import Outlet, make_client, parse_url
from fluxfarm.settings import Settings
from fluxfarm.tracing import Attributes, Tracing
from fluxfarm.webhooks import OUTLET, SCHEDULE, delay, delivered, pause
from storage.database import Database
from storage.notifier import Notifier
from storage.queue import Queue
from storage.repository import deliveries, endpoints
from storage.repository.deliveries import SENDER_LOST, Answer, Message
from storage.sealing import Sealer
from workers import alive, metrics
from workers.telling import Teller

SLOTS: Final = 8  #: threads; a sender waits for strangers most of the time
SPARE_CONNECTIONS: Final = 2
MARGIN: Final = 15.0  #: seconds of the lease beyond the time of an exchange
DATABASE_PATIENCE: Final = 0.5  #: seconds between two tries to write an answer down
GONE: Final = 410  #: the endpoint wants no more webhooks
NOTHING: Final = "nothing to do"  #: a doubled or late ticket

log = structlog.get_logger()


class WebhookSender:
    """Sends the deliveries that tickets name; ``outlet`` is the seam for tests on loopback."""

    def __init__(
        self, settings: Settings, database: Database | None = None, *, slots: int = SLOTS, outlet: Outlet = OUTLET
    ) -> None:
        """Connects on the first ticket.

        Raises:
            InternalError: ``FLUXFARM_SECRET_KEY`` is too short.
            StoreUnavailable: the data folder cannot be used.
        """
        self.database = database or Database.from_settings(settings, pool_size=slots + SPARE_CONNECTIONS)
        self.queue = Queue(settings)
        self.notifier = Notifier(self.database, self.queue)
        self.lease = outlet.deadline_seconds + MARGIN
        self._outlet = outlet
        self._sealer = Sealer.from_settings(settings)
        self._teller = Teller(settings, self._sealer)
        self.settings = settings
        self._pulse = alive.Pulse(settings)
        self._tracing = Tracing.from_settings(settings, "webhooks")

    def handle(self, delivery_id: str) -> str:
        """Send the delivery if it is due; gives a word for Flower, never an address."""
        until = time.monotonic() + self.lease
        with self.database.transaction() as session:
            message = deliveries.claim(session, delivery_id, self.lease)
        if message is None:
            return NOTHING
        span = self._tracing.begin("webhook", "CLIENT", parent=message.traceparent, told=_told(message))
        error: str | None = InternalError.code
        try:
            with span.inside():
                word, answer = self._carry_out(message, until)
            if answer.status is not None:
                span.tell({"http.response.status_code": answer.status})
            error = answer.error
        finally:
            span.end(error)
        return word

    def _carry_out(self, message: Message, until: float) -> tuple[str, Answer]:
        """Send it and write down what came of it; gives the word as well."""
        if message.tries > len(SCHEDULE):
            answer, asked = Answer(ms=0, error=SENDER_LOST, detail="Its senders died each time."), None
        else:
            answer, asked = self.send(message)
        word = self._settle(message, answer, asked, until)
        metrics.WEBHOOKS.labels(word).inc()
        log.info("webhook_sent", delivery=message.id, attempt=message.number, status=answer.status, result=word)
        self.notifier.hurry(message.endpoint_id)
        return word, answer

    def send(self, message: Message) -> tuple[Answer, str | None]:
        """One POST; what came of it, and the receiver's ``Retry-After``. The body of the reply is not read."""
        started = time.monotonic()
        status: int | None = None
        asked: str | None = None
        error: str | None = None
        detail: str | None = None
        try:
            content, headers = self._teller.signed(message)
            with (
                make_client(self._outlet) as client,
                client.stream("POST", parse_url(message.url), content=content, headers=headers) as response,
            ):
                status, asked = response.status_code, response.headers.get("retry-after")
        except FluxfarmError as failure:
            error, detail = failure.code, failure.message
        except Exception as failure:
            log.exception("webhook_fault", delivery=message.id)
            error, detail = "internal_error", f"The sender made a mistake ({type(failure).__name__})."
        if status is not None and not delivered(status):
            error = f"http_{status}"
        ms = round((time.monotonic() - started) * 1000)
        return Answer(ms=ms, status=status, error=error, detail=detail), asked

    def _settle(self, message: Message, answer: Answer, asked: str | None, until: float) -> str:
        """Write the answer down; while the database is away, try until the lease is over and it is sent again."""
        while True:
            try:
                return self._write(message, answer, asked)
            except DatabaseUnavailable:
                if time.monotonic() > until:
                    raise
                time.sleep(DATABASE_PATIENCE)

    def _write(self, message: Message, answer: Answer, asked: str | None) -> str:
        status = answer.status or 0
        with self.database.transaction() as session:
            if delivered(status):
                return _word("delivered", deliveries.succeed(session, message, answer))
            if status == GONE:
                endpoints.lock(session, message.endpoint_id)
                done = deliveries.give_up(session, message, answer)
                endpoints.disable(session, message.endpoint_id, "410: the receiver wants no more webhooks")
                return _word("gone", done)
            rest = pause(status, asked, message.now)
            wait = delay(message.tries, secrets.randbelow(1001) / 1000)
            if wait is None:
                return _word("failed", deliveries.give_up(session, message, answer))
            return _word("postponed", deliveries.postpone(session, message, answer, wait=max(wait, rest), pause=rest))

    def start(self) -> None:
        """Nothing to prepare but the pulse."""
        self._pulse.start()

    def warm_up(self) -> None:
        """Nothing to load."""
        log.info("webhooks_ready")

    def stop(self) -> None:
        """Give the connections back."""
        self._pulse.stop()
        self.queue.close()
        self.database.close()
        self._teller.close()
        self._tracing.close()


def _told(message: Message) -> Attributes:
    """What a trace says of it; never where it goes, as that may hold a secret."""
    told = {"fluxfarm.webhook.id": message.id, "http.request.method": "POST"}
    return told if message.number == 1 else told | {"http.request.resend_count": message.number - 1}


def _word(word: str, counts: bool) -> str:
    return word if counts else "late"
