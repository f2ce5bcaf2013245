"""Celery over Valkey or RabbitMQ: it carries tickets, and a ticket is the id of a job or a delivery, nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import structlog
from celery import Celery
from kombu import Producer

from fluxfarm.settings import Settings
from storage.broker import AMQP, FAULTS, open_broker, patience

TASK: Final = "fluxfarm.render"  #: its one argument is a job's uuid
DELIVER: Final = "fluxfarm.deliver"  #: its one argument is the id of a webhook's delivery
WEBHOOK_QUEUE: Final = "webhooks"
REMOTE_QUEUE: Final = "remote"
PUBLISH_TIMEOUT: Final = 0.5  #: seconds that a send may take before the broker counts as down
PAUSE_AFTER_FAILURE: Final = 1.0  #: seconds without another try, so that a hung broker slows no caller down

log = structlog.get_logger()


def local_queue(model: str) -> str:
    """The queue of the GPU workers that render this model."""
    return "local." + model.rpartition("/")[2]


def broker_url(settings: Settings) -> str:
    """RabbitMQ where it is named, else Valkey."""
    return settings.broker_url.get_secret_value() or settings.redis_url.get_secret_value()


def configuration(url: str) -> dict[str, Any]:
    """Celery's settings, each chosen by measurement.

    Early acknowledgement and no prefetch: the lease recovers a job, not the broker, and with late acknowledgement a
    worker of more than one slot exits when the broker restarts (Celery 5.7.0). No result backend: the record is the
    result. Tickets are never scheduled: an ETA longer than the visibility timeout runs a task several times.
    """
    rabbit = url.startswith(AMQP)
    return {
        "broker_url": url,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {"confirm_publish": True, **patience(5), "connect_timeout": 2}
        if rabbit
        else {
            "visibility_timeout": 7200,
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 5,
            "queue_order_strategy": "priority",
        },
        "result_backend": None,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_acks_late": False,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": not rabbit,  # RabbitMQ has no such thing: a slot holds one ticket more
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        "task_publish_retry": False,
        "task_create_missing_queues": True,
        "task_create_missing_queue_type": "quorum" if rabbit else "classic",
        "task_default_queue_type": "quorum" if rabbit else "classic",
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "timezone": "UTC",
    }


def make_app(settings: Callable[[], Settings], include: tuple[str, ...] = ()) -> Celery:
    """The Celery application; its settings are read when they are first needed, not at import."""
    app = Celery("fluxfarm", set_as_current=False, include=include)
    app.add_defaults(lambda: configuration(broker_url(settings())))
    return app


class Queue:
    """The sending side: short time-outs, no retries; the dispatcher sends again what did not arrive."""

    def __init__(self, settings: Settings) -> None:
        """Connects on the first send."""
        url = broker_url(settings)
        self._app = Celery("fluxfarm", set_as_current=False)
        self._app.conf.update(configuration(url))
        self._app.conf.broker_transport_options = {
            **self._app.conf.broker_transport_options,
            **patience(PUBLISH_TIMEOUT),  # of RabbitMQ
            "socket_timeout": PUBLISH_TIMEOUT,  # of Valkey, as the next
            "socket_connect_timeout": PUBLISH_TIMEOUT,
            "max_retries": 0,  # ``retry=False`` does not reach kombu's own loop, which tries for 6 s
        }
        self._broker = open_broker(url, PUBLISH_TIMEOUT)
        self._down_until = 0.0

    def enqueue(self, queue: str, uuid: UUID) -> bool:
        """Send a ticket; False: the broker is down for the moment, and nothing is lost by that."""
        return self._send(TASK, str(uuid), queue)

    def enqueue_delivery(self, delivery_id: str) -> bool:
        """Send a ticket for a webhook's delivery; False as above."""
        return self._send(DELIVER, delivery_id, WEBHOOK_QUEUE)

    def _send(self, task: str, ticket: str, queue: str) -> bool:
        if time.monotonic() < self._down_until:
            return False
        try:
            with self._app.producer_or_acquire() as producer:
                self._send_by(producer, task, ticket, queue)
        except FAULTS as error:
            self._down_until = time.monotonic() + PAUSE_AFTER_FAILURE
            log.warning("broker_unavailable", error=type(error).__name__)
            return False
        return True

    def _send_by(self, producer: Producer, task: str, ticket: str, queue: str) -> None:
        try:
            self._app.send_task(
                task,
                args=(ticket,),
                task_id=ticket,
                queue=queue,
                retry=False,
                producer=producer,
                timeout=PUBLISH_TIMEOUT,
                confirm_timeout=PUBLISH_TIMEOUT,
            )
        except FAULTS:
            producer.connection.collect()  # a late answer on it would be taken for that of the next send
            raise

    def depth(self, queue: str) -> int:
        """Tickets that the broker holds.

        Raises:
            BrokerUnavailable: it does not answer.
        """
        return self._broker.depth(queue)

    def check(self) -> None:
        """Raise BrokerUnavailable unless the broker answers."""
        self._broker.check()

    def close(self) -> None:
        """Give the connections back."""
        self._app.close()
        self._broker.close()
