"""The way of jobs through a worker: claim those that are drawn together, draw them, deliver each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final
from uuid import UUID

import structlog
from PIL import Image as Pillow

from fluxfarm.errors import DatabaseUnavailable, DeviceLost, FluxfarmError, InternalError, NotFound, ReferenceGone
from fluxfarm.request import RenderRequest
from storage.repository import dispatch, followers
from storage.repository.upcoming import likely
from workers import spans
from workers.delivery import DATABASE_PATIENCE, faults_as_errors, patiently, put
from workers.leases import Held
from workers.providers.drawn import Drawn, Stored
from workers.providers.local import LocalProvider
from workers.upsampling import by_chat, upsample

if TYPE_CHECKING:
    from workers.worker import RenderWorker

NOTHING: Final = "nothing to do"  #: a doubled or late ticket
SIGHT: Final = 4  #: jobs whose prompts are encoded before their turn
REFILL: Final = 0.5  #: share of the window that must be free before a worker sends tickets

log = structlog.get_logger()


def render_next(worker: RenderWorker, queue: str, ticket: UUID) -> str:
    """Render the job whose turn it is on the ticket's queue, and those that follow it; gives a word for Flower.

    The jobs are claimed when the device is free or only finishes a picture, so that no lease is held while waiting;
    it is free again before the pictures are encoded, so that the next jobs are drawn meanwhile.
    """
    held: list[Held] = []
    _look_ahead(worker, queue, ticket)
    try:
        with worker.provider.turn() as take_device:
            if worker.retiring:
                hand_back(worker, queue, ticket)  # another worker has it
                return NOTHING
            held = _claim(worker, queue, ticket)
            if not held:
                return NOTHING
            take_device()
            asks_elsewhere = held[0].claim.request.prompt_upsampling and bool(worker.settings.upsampling_url)
            drawn = [] if asks_elsewhere else _draw(worker, held)
        if asks_elsewhere:  # the device is free for others while the prompt is rewritten
            drawn = [_draw_rewritten(worker, held[0])]
        words = worker.deliver(list(zip(held, drawn, strict=True)))
    finally:
        for one in held:
            worker.leases.let_go(one)
            one.span.end(InternalError.code)  # unless it ended as it should
    if any(isinstance(one, DeviceLost) for one in drawn):
        worker.provider.give_up_device()
    _send_next(worker, queue)
    return ", ".join(words)


def _look_ahead(worker: RenderWorker, queue: str, ticket: UUID) -> None:
    """Make use of the time until the turn comes; nothing is claimed."""

    def upcoming() -> list[RenderRequest]:
        with worker.database.transaction() as session:
            return likely(session, queue, ticket, SIGHT)

    if isinstance(worker.provider, LocalProvider) and not worker.retiring:
        worker.provider.look_ahead(queue, upcoming)


def _claim(worker: RenderWorker, queue: str, ticket: UUID) -> list[Held]:
    """Take the jobs whose turn it is; a ticket is not let go because the database is away for a moment."""
    while True:
        before = time.monotonic()
        try:
            with worker.database.transaction() as session:
                claims = followers.take_together(session, queue, ticket, worker.claimant, worker.provider.most)
        except DatabaseUnavailable as error:
            if worker.retiring:
                raise
            log.warning("claim_postponed", code=error.code)
            time.sleep(DATABASE_PATIENCE)
        else:
            begun = [spans.begin(worker.tracing, claim, worker.provider.name) for claim in claims]
            return [worker.leases.hold(claim, before, span) for claim, span in zip(claims, begun, strict=True)]


def hand_back(worker: RenderWorker, queue: str, ticket: UUID) -> None:
    """The ticket is not used and not at the broker either: a job waits for a new one."""
    with worker.database.transaction() as session:
        dispatch.return_ticket(session, queue, ticket)


def _draw_rewritten(worker: RenderWorker, held: Held) -> Drawn | FluxfarmError:
    request = held.claim.request
    try:
        with faults_as_errors():
            upsample(worker, held, lambda: by_chat(worker.settings, request.prompt, request.seeds[0]))
        with worker.provider.turn() as take_device:
            take_device()
            held.check()
            return _draw_one(worker, held)
    except FluxfarmError as error:
        return error


def _draw(worker: RenderWorker, held: list[Held]) -> list[Drawn | FluxfarmError]:
    """Draw the jobs; what befell each stands in the place of its pictures."""
    provider = worker.provider
    try:
        if len(held) == 1 or not isinstance(provider, LocalProvider):
            return [_draw_one(worker, one) for one in held]
        refusals = [_refusal(worker, one) for one in held]
        fine = [one for one, refusal in zip(held, refusals, strict=True) if refusal is None]
        with faults_as_errors():
            called = [(one, (), worker.previews.for_job(one.claim)) for one in fine]
            drawn = iter(provider.draw_together(called) if called else ())
        return [next(drawn) if refusal is None else refusal for refusal in refusals]
    except FluxfarmError as error:
        return [error for _ in held]


def _refusal(worker: RenderWorker, held: Held) -> FluxfarmError | None:
    """Why the job is not drawn with the others."""
    try:
        with faults_as_errors(), held.span.inside():
            worker.safety.check_prompt(held.claim)
    except FluxfarmError as error:
        return error
    return None


def _draw_one(worker: RenderWorker, held: Held) -> Drawn:
    def keep(n: int, picture: Pillow.Image, seed: int) -> Stored:
        return put(worker, held, n, picture, seed, {"encode": 0.0, "upload": 0.0})

    with faults_as_errors(), held.span.inside():
        references = tuple(_reference(worker, held, key) for key in held.claim.request.references)
        provider = worker.provider
        if held.claim.request.prompt_upsampling and isinstance(provider, LocalProvider):  # others do it themselves
            upsample(worker, held, lambda: provider.upsample(held.claim.request, references))
        worker.safety.check_prompt(held.claim)
        return provider.draw(held, references, keep, worker.previews.for_job(held.claim))


def _reference(worker: RenderWorker, held: Held, key: str) -> bytes:
    try:
        return patiently(worker, held, lambda: worker.store.get(key))
    except NotFound as error:
        raise ReferenceGone("A reference image was deleted before the render could read it.") from error


def _send_next(worker: RenderWorker, queue: str) -> None:
    """Places in the window are free: send the next tickets now, not in a second, but not one by one."""
    try:
        worker.dispatcher.dispatch(queue, least=REFILL)
    except FluxfarmError as error:
        log.warning("dispatch_postponed", code=error.code)
