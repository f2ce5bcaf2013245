"""What a trace tells of an attempt: the wait before it, its phases, and the calls of providers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from fluxfarm.tracing import Attributes, Span, Tracing
from storage.repository.turns import Claim

DRAWING: Final = ("load", "encode_prompt", "render")  #: phases by their names in an attempt's timings
DELIVERING: Final = ("encode", "upload")


def begin(tracing: Tracing, claim: Claim, provider: str) -> Span:
    """The span of an attempt that was claimed just now; before the first one stands the wait in the queue."""
    now = time.time()
    told: Attributes = {
        "fluxfarm.job.uuid": str(claim.uuid),
        "fluxfarm.attempt": claim.attempt,
        "fluxfarm.provider": provider,
        "fluxfarm.images": claim.request.n,
        "gen_ai.request.model": claim.request.model,
    }
    if claim.attempt == 1:
        tracing.begin("queue", parent=claim.traceparent, at=now - claim.queued_seconds, told=told).end(at=now)
    return tracing.begin("attempt", "CONSUMER", parent=claim.traceparent, at=now, told=told)


def phases(attempt: Span, timings: Mapping[str, float], drawn_at: float) -> None:
    """The phases, from their seconds, laid end to end: drawing up to ``drawn_at``, delivering from there on."""
    at = drawn_at - sum(timings.get(name, 0.0) for name in DRAWING)
    for name in (*DRAWING, *DELIVERING):
        if name in timings:
            attempt.child(name, at=at).end(at=at + timings[name])
            at += timings[name]


def call(attempt: Span, provider: str, model: str, images: Sequence[int]) -> Span:
    """A paid call of a provider, from its one POST to its pictures."""
    told: Attributes = {"gen_ai.provider.name": provider, "gen_ai.request.model": model, "fluxfarm.images": len(images)}
    return attempt.child(f"call {provider}", "CLIENT", told=told)
