"""From drawn pictures to a job that is over: encode, put, finish; or give up, or leave it to whoever has it now.

It needs no device: while one slot does this, the next one draws.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
from PIL import Image as Pillow

from fluxfarm.airecord import Problem
from fluxfarm.errors import (
    Canceled,
    DatabaseUnavailable,
    FluxfarmError,
    InternalError,
    LeaseLost,
    NotFound,
    ProviderError,
    RenderFailed,
    ResultLost,
    StoreUnavailable,
)
from fluxfarm.jobs import JobState
from fluxfarm.remotes import LOCAL
from storage.objects import attempt_prefix, object_key
from storage.repository import attempts
from storage.repository.attempts import Outcome
from workers import metrics, spans
from workers.encoding import encode
from workers.fallback import end_badly
from workers.leases import Held
from workers.providers.drawn import Drawn, Stored

if TYPE_CHECKING:
    from workers.worker import RenderWorker

DATABASE_PATIENCE: Final = 0.5  #: seconds between two tries to claim or to finish while the database is away
STORE_PAUSE: Final = 1.0  #: seconds between two tries while the object store is away

Answer = TypeVar("Answer")
log = structlog.get_logger()


def end(worker: RenderWorker, held: Held, drawn: Drawn | FluxfarmError) -> str:
    """Deliver what was drawn, or tell of what was not; the lease is let go of. Gives a word for Flower.

    Whatever goes wrong here ends here: the others of a batch are delivered, and a job whose end could not even be told
    comes back when its lease has run out.
    """
    try:
        with held.span.inside():
            word = _end(worker, held, drawn)
    except Exception:
        log.exception("delivery_fault", job=str(held.claim.uuid), attempt=held.claim.attempt)
        word = InternalError.code
    held.span.end(None if word == JobState.SUCCESS else word)
    return word


def _end(worker: RenderWorker, held: Held, drawn: Drawn | FluxfarmError) -> str:
    try:
        if isinstance(drawn, FluxfarmError):
            raise drawn
        return _deliver(worker, held, drawn)
    except (Canceled, LeaseLost) as error:
        return _abandon(worker, held, error)
    except FluxfarmError as error:
        return _give_up(worker, held, error)
    finally:
        worker.leases.let_go(held)
        worker.notifier.hurry(held.claim.webhook_id)


@contextmanager
def faults_as_errors() -> Iterator[None]:
    """Whatever else is raised in a render becomes ``RenderFailed``."""
    try:
        yield
    except FluxfarmError:
        raise
    except Exception as error:
        log.exception("render_fault")
        raise RenderFailed(f"The render failed with {type(error).__name__}.") from error


def patiently(worker: RenderWorker, held: Held, call: Callable[[], Answer]) -> Answer:
    """Ask the object store; while it is away the lease is kept and it is asked again: a render is dear, waiting is not.

    Raises:
        StoreUnavailable: it was away for ``settings.store_patience`` seconds, or the process was told to stop.
        Canceled, LeaseLost: the job is no longer ours.
    """
    until = time.monotonic() + worker.settings.store_patience
    while True:
        try:
            return call()
        except StoreUnavailable as error:
            if time.monotonic() >= until or worker.retiring:
                raise
            log.warning("store_awaited", job=str(held.claim.uuid), reason=error.message)
        time.sleep(STORE_PAUSE)
        held.check()


def _deliver(worker: RenderWorker, held: Held, drawn: Drawn) -> str:
    """Encode, put and finish; the lease is kept all the while."""
    with faults_as_errors():
        outcome = _put_all(worker, held, drawn)
        is_finished = _settle(held, lambda: _finish(worker, held, outcome))
    if not is_finished:
        raise LeaseLost("The job was finished or stopped elsewhere.")
    metrics.finished(held.claim.request.model, worker.provider.name, len(outcome.images), outcome.timings)
    log.info("job_finished", job=str(held.claim.uuid), attempt=held.claim.attempt, **outcome.timings)
    return JobState.SUCCESS.value


def _put_all(worker: RenderWorker, held: Held, drawn: Drawn) -> Outcome:
    drawn_at = time.time()
    timings = {"queue": round(held.claim.queued_seconds, 3), **drawn.timings, "encode": 0.0, "upload": 0.0}
    images: list[Stored] = []
    for n, picture in enumerate(drawn.images):
        held.check()
        _look_at(worker, held, picture)
        if isinstance(picture, dict):
            images.append(_carry_over(worker, held, n, picture))
        else:
            seed = (drawn.seeds or held.claim.request.seeds)[n]
            images.append(put(worker, held, n, picture, seed, timings))
    spans.phases(held.span, timings, drawn_at)
    return Outcome(
        images=images,
        timings={name: round(seconds, 4) for name, seconds in timings.items()},
        model_revision=drawn.revision,
        cost=drawn.cost,
        provider=drawn.provider,
        calls=drawn.calls,
        device=drawn.device,
        batch=drawn.batch,
    )


def _look_at(worker: RenderWorker, held: Held, picture: Pillow.Image | Stored) -> None:
    """Show a picture to the farm's own checks, also one that was paid and put before."""
    if not worker.safety.sees_pictures:
        return
    if isinstance(picture, dict):
        key = picture["object_key"]
        worker.safety.check_picture(held.claim, patiently(worker, held, lambda: worker.store.get(key)))
    else:
        worker.safety.check_picture(held.claim, picture)


def _carry_over(worker: RenderWorker, held: Held, n: int, stored: Stored) -> Stored:
    """A picture that was paid in an attempt before, under a key of this one, as the other attempt's are swept."""
    claim = held.claim
    if stored["object_key"].startswith(attempt_prefix(claim.tenant_id, claim.uuid, claim.attempt)):
        return stored
    extension = stored["object_key"].rpartition(".")[2]
    key = object_key(claim.tenant_id, claim.uuid, claim.attempt, n, extension)
    try:
        body = patiently(worker, held, lambda: worker.store.get(stored["object_key"]))
    except NotFound as error:
        raise ResultLost("A picture that an attempt before had paid for is gone.") from error
    patiently(worker, held, lambda: worker.store.put(key, body, stored["content_type"]))
    return stored | {"object_key": key}


def put(
    worker: RenderWorker, held: Held, n: int, picture: Pillow.Image, seed: int, timings: dict[str, float]
) -> Stored:
    """Encode a picture and put it under the attempt's own prefix; the seconds are added to ``timings``."""
    claim, request = held.claim, held.claim.request
    started = time.perf_counter()
    encoded = encode(
        picture,
        output_format=request.output_format,
        quality=request.output_quality,
        width=request.width,
        height=request.height,
        mark=None if worker.watermark is None else worker.watermark.mark,
        sign=None if worker.provenance is None else partial(worker.provenance.sign, model=request.model),
    )
    encoded_at = time.perf_counter()
    key = object_key(claim.tenant_id, claim.uuid, claim.attempt, n, encoded.extension)
    patiently(worker, held, lambda: worker.store.put(key, encoded.body, encoded.content_type))
    timings["encode"] += encoded_at - started
    timings["upload"] += time.perf_counter() - encoded_at
    return {
        "n": n,
        "object_key": key,
        "seed": seed,
        "width": encoded.width,
        "height": encoded.height,
        "content_type": encoded.content_type,
        "size_bytes": len(encoded.body),
        "sha256": encoded.sha256,
    }


def _settle(held: Held, write: Callable[[], Answer]) -> Answer:
    """Write the end of an attempt; while the database is away, try for as long as the lease may still hold."""
    while True:
        try:
            return write()
        except DatabaseUnavailable:
            if not held.is_fresh:
                raise LeaseLost("The database was away for longer than the lease.") from None
            time.sleep(DATABASE_PATIENCE)


def _finish(worker: RenderWorker, held: Held, outcome: Outcome) -> bool:
    with worker.database.transaction() as session:
        return attempts.finish(session, held.claim, outcome)


def _give_up(worker: RenderWorker, held: Held, error: FluxfarmError) -> str:
    """The attempt failed: the job waits for another try, or is FAILED."""
    problem = Problem(code=error.code, message=error.message, retryable=error.retryable)
    metrics.failed(held.claim.request.model, worker.provider.name, error.code)
    log.warning("attempt_failed", job=str(held.claim.uuid), attempt=held.claim.attempt, code=error.code)

    def write() -> JobState | None:
        with worker.database.transaction() as session:
            return end_badly(
                session,
                held,
                error,
                problem,
                local=worker.provider.name == LOCAL,
                max_attempts=worker.settings.max_attempts,
            )

    try:
        state = _settle(held, write)
    except LeaseLost as lost:
        return _abandon(worker, held, lost)
    if not isinstance(error, ProviderError):  # what a remote attempt stored may be another one's; the scheduler sweeps
        _sweep(worker, held)
    with suppress(DatabaseUnavailable):  # the scheduler closes what stays open
        worker.provider.wind_up(held)
    return error.code if state is not None else LeaseLost.code


def _abandon(worker: RenderWorker, held: Held, error: Canceled | LeaseLost) -> str:
    """The job is no longer ours: change nothing of it and take back what was stored.

    Only the record knows whether the attempt lost: a finish may have counted although its answer never came. While
    it cannot be asked, nothing is deleted; the scheduler sweeps what lost.
    """
    metrics.LEASES_LOST.inc()
    log.info("attempt_abandoned", job=str(held.claim.uuid), attempt=held.claim.attempt, code=error.code)
    problem = Problem(code=error.code, message=error.message, retryable=error.retryable)
    try:
        with worker.database.transaction() as session:
            lost = attempts.close_lost(session, held.claim, problem)
        if lost:
            worker.provider.wind_up(held)
    except DatabaseUnavailable:
        log.warning("abandon_not_noted", job=str(held.claim.uuid))
        return error.code
    if not lost:
        return JobState.SUCCESS.value
    _sweep(worker, held)
    return error.code


def _sweep(worker: RenderWorker, held: Held) -> None:
    """Delete what a losing attempt stored; what cannot be deleted now is left to the scheduler."""
    claim = held.claim
    try:
        worker.store.delete_prefix(attempt_prefix(claim.tenant_id, claim.uuid, claim.attempt))
        with worker.database.transaction() as session:
            attempts.mark_swept(session, claim.uuid, claim.attempt)
    except FluxfarmError as error:
        log.warning("sweep_postponed", job=str(claim.uuid), code=error.code)
