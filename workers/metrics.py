"""What Prometheus reads from a worker, a sender or the scheduler, on a port of its own.

Labels are bounded: models, providers, stages, codes of errors; never a tenant, a job or a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import structlog
from prometheus_client import REGISTRY, Counter, Gauge, Histogram, start_http_server

from fluxfarm.settings import Settings

STAGES: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 600, 3600)
ROUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

ATTEMPTS: Final = Counter("fluxfarm_attempts", "Attempts that ended, by how.", ("model", "provider", "result"))
STAGE: Final = Histogram(
    "fluxfarm_stage_seconds", "Where the time of a finished attempt went.", ("model", "stage"), buckets=STAGES
)
IMAGES: Final = Counter("fluxfarm_images", "Pictures of attempts that succeeded.", ("model", "provider"))
TOGETHER: Final = Histogram(
    "fluxfarm_batch_jobs", "Jobs of one shape that were drawn together.", buckets=(1, 2, 3, 4, 6, 8, 12, 16)
)
LOADS: Final = Histogram("fluxfarm_model_load_seconds", "Models that were loaded.", ("model",), buckets=STAGES)
EMBEDDINGS: Final = Counter("fluxfarm_prompt_embeddings", "Prompts that were to be encoded, by result.", ("result",))
EMBEDDING_BYTES: Final = Gauge("fluxfarm_prompt_embedding_bytes", "Bytes of prompt embeddings in host memory.")
DEVICE_MEMORY: Final = Gauge("fluxfarm_device_memory_bytes", "Memory in use on the device that renders.", ("device",))
DEVICE_LOAD: Final = Gauge("fluxfarm_device_utilisation", "Share of the time that the GPU was busy.", ("device",))
DEVICE_WATTS: Final = Gauge("fluxfarm_device_watts", "Power that the GPU draws.", ("device",))
LEASES_LOST: Final = Counter("fluxfarm_leases_lost", "Attempts whose job was taken by another, or stopped.")
WEBHOOKS: Final = Counter("fluxfarm_webhook_attempts", "POSTs to endpoints, by what came of them.", ("result",))
ROUND: Final = Histogram("fluxfarm_scheduler_round_seconds", "A round of tickets and sweeps.", buckets=ROUNDS)
LAST_ROUND: Final = Gauge("fluxfarm_scheduler_last_round", "When the last round ended well, in Unix seconds.")
EXPIRED: Final = Counter("fluxfarm_leases_expired", "Jobs that were taken back from dead workers.")
ERASED: Final = Counter("fluxfarm_retention_erased", "What was erased as its time was over.", ("kind",))
FLAGGED: Final = Counter("fluxfarm_safety_flags", "Prompts and pictures that a check found.", ("what", "mode"))
RESENT: Final = Counter("fluxfarm_tickets_resent", "Tickets that the broker had lost.")

log = structlog.get_logger()


def serve(settings: Settings) -> None:
    """Open the port, if there is one; a port that is taken is told, and the work goes on."""
    if not settings.metrics_port:
        return
    try:
        start_http_server(settings.metrics_port, settings.metrics_host, REGISTRY)
    except OSError as error:
        log.warning("metrics_not_served", port=settings.metrics_port, error=type(error).__name__)


def finished(model: str, provider: str, images: int, timings: Mapping[str, float]) -> None:
    """An attempt succeeded; ``timings`` are in seconds."""
    ATTEMPTS.labels(model, provider, "success").inc()
    IMAGES.labels(model, provider).inc(images)
    for stage, seconds in timings.items():
        STAGE.labels(model, stage).observe(seconds)


def failed(model: str, provider: str, code: str) -> None:
    """An attempt ended otherwise."""
    ATTEMPTS.labels(model, provider, code).inc()


@contextmanager
def round_of_the_scheduler() -> Iterator[None]:
    """Times a round, and notes that it ended well."""
    with ROUND.time():
        yield
    LAST_ROUND.set_to_current_time()
