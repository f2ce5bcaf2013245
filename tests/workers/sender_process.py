"""``python -m tests.workers.sender_process <port>``: the webhooks process, but its way out leads to loopback."""

from __future__ import annotations

import sys
from functools import partial

from fluxfarm.outbound import Outlet
from fluxfarm.settings import Settings
from tests.workers.receiver import loopback, only_loopback
from workers import celery
from workers.__main__ import sender_arguments
from workers.webhooks import WebhookSender

if __name__ == "__main__":
    outlet = Outlet(20_000, 5.0, True, {int(sys.argv[1])}, loopback, only_loopback)
    celery.WebhookSender = partial(WebhookSender, outlet=outlet)  # type: ignore[assignment,attr-defined]
    celery.app.worker_main(sender_arguments(Settings()))
