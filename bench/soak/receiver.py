"""A receiver of webhooks that is as unreliable as receivers are, and keeps what came."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from tests.s3.faulty import LoopbackServer

FAILS: Final = 0.04  #: of the messages, at their first try
SLOW: Final = 0.02  #: of the tries
SLOWNESS: Final = 3.0  #: seconds


@dataclass
class Received:
    """What came, by ``webhook-id``; ``told`` is what each message says."""

    secret: str = ""
    bodies: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    tries: int = 0
    taken: int = 0  #: tries that were answered with 204
    refused: set[str] = field(default_factory=set)
    forged: int = 0  #: a signature that does not hold
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, headers: dict[str, str], body: bytes, chance: float) -> int:
        """Keep it, and what to answer."""
        message = headers.get("webhook-id", "")
        try:
            Webhook(self.secret).verify(body, headers)
        except WebhookVerificationError:
            self.forged += 1
            return 400
        with self.lock:
            self.tries += 1
            self.bodies[message].add(hashlib.sha256(body).hexdigest())
            if chance < FAILS and message not in self.refused and message not in self.told:
                self.refused.add(message)
                return 500
            self.told[message] = json.loads(body)
            self.taken += 1
            return 204


@contextmanager
def receiving(seed: int) -> Iterator[tuple[int, Received]]:
    """Serve on a free port of loopback."""
    received, dice = Received(), random.Random(seed)

    class Handler(BaseHTTPRequestHandler):
        timeout = 20

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            if dice.random() < SLOW:
                time.sleep(SLOWNESS)
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.send_response(received.take(headers, body, dice.random()))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Stays quiet."""

    server = LoopbackServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1], received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
