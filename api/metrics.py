"""What Prometheus reads from an API process: its own traffic, and how the farm stands by the record.

Labels are bounded: routes by their template, queues, states, lanes and providers; never a tenant, a job or a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from fluxfarm.errors import DatabaseUnavailable
from storage.database import Database
from storage.repository import gauges
from storage.repository.gauges import Standing

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
NO_ROUTE: Final = "unmatched"  #: of calls to paths that do not exist, which strangers invent


class Metrics:
    """One registry a process."""

    def __init__(self, database: Database) -> None:
        """Asks the database only when it is read."""
        self.registry = CollectorRegistry()
        self.registry.register(Farm(lambda: read(database)))
        self._requests = Counter(
            "fluxfarm_http_requests",
            "Replies of this API process.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "fluxfarm_http_request_seconds",
            "Time to the end of the reply; long polls and event streams count whole.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        #: what a reply is counted with; looking the labels up again takes longer than counting
        self._of: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One reply."""
        of = self._of.get((method, route, status))
        if of is None:
            of = self._requests.labels(method, route, str(status)), self._seconds.labels(route)
            self._of[method, route, status] = of
        of[0].inc()
        of[1].observe(seconds)

    def text(self) -> bytes:
        """The exposition format, version 0.0.4."""
        return generate_latest(self.registry)


def read(database: Database) -> Standing | None:
    """How the farm stands; None while the database is away."""
    try:
        with database.transaction() as session:
            return gauges.standing(session)
    except DatabaseUnavailable:
        return None


class Farm(Collector):
    """The gauges that come from the record; every API process tells the same, so dashboards take the maximum."""

    def __init__(self, look: Callable[[], Standing | None]) -> None:
        self._look = look

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: registering must not ask the database."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One look at the record."""
        standing = self._look()
        yield GaugeMetricFamily("fluxfarm_database_up", "Whether the record answers.", value=int(standing is not None))
        if standing is None:
            return
        names = ("queue", "state", "lane")
        jobs = GaugeMetricFamily("fluxfarm_jobs", "Jobs that are not over.", labels=names)
        tickets = GaugeMetricFamily("fluxfarm_tickets", "Of those, how many wait at the broker.", labels=names[::2])
        oldest = GaugeMetricFamily("fluxfarm_oldest_job_seconds", "Age of the oldest of them.", labels=names)
        for one in standing.jobs:
            labels = (one.queue, one.state.value, one.lane.value)
            jobs.add_metric(labels, one.jobs)
            oldest.add_metric(labels, one.oldest)
            if one.tickets:
                tickets.add_metric(labels[::2], one.tickets)
        workers = GaugeMetricFamily("fluxfarm_workers", "Live worker processes.", labels=("provider", "state"))
        slots = GaugeMetricFamily("fluxfarm_worker_slots", "Their threads.", labels=("provider", "state"))
        for live in standing.workers:
            workers.add_metric((live.provider, live.state), live.workers)
            slots.add_metric((live.provider, live.state), live.slots)
        yield from (jobs, tickets, oldest, workers, slots)
        yield GaugeMetricFamily(
            "fluxfarm_webhooks_pending", "Messages that are not delivered yet.", value=standing.pending_webhooks
        )
        yield GaugeMetricFamily("fluxfarm_oldest_webhook_seconds", "Age of the oldest.", value=standing.oldest_webhook)
