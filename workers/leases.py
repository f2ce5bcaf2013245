"""Keeps the leases of the running attempts, in a thread beside the renderer, and stops an attempt that lost its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import structlog

from fluxfarm.errors import Canceled, DatabaseUnavailable, LeaseLost, RenderError
from fluxfarm.routing import RoutePlan
from fluxfarm.tracing import OFF, Span
from storage.database import Database, Session
from storage.listening import Notice, listen
from storage.repository import attempts, jobs
from storage.repository.calls import CALL_HINT
from storage.repository.events import EVERY_ATTEMPT, JOB_STOPPED
from storage.repository.progress import Progress, report
from storage.repository.turns import Claim

PROGRESS_INTERVAL: Final = 0.5  #: seconds between two writes of progress; each takes the renderer some of Python's time
RECONNECT_PAUSE: Final = 0.5  #: seconds

log = structlog.get_logger()


@dataclass
class Held:
    """A claim while its lease is kept; the renderer asks it at every step whether to go on."""

    claim: Claim
    lease: float
    renewed_at: float = field(default_factory=time.monotonic)
    progress: tuple[int, int] | None = None
    reported: tuple[int, int] | None = None
    stopped: RenderError | None = None
    plan: RoutePlan | None = None  #: what was weighed for this attempt, when it is a remote one
    span: Span = OFF  #: of the attempt
    woken: threading.Event = field(default_factory=threading.Event)

    def on_step(self, step: int, steps: int) -> None:
        """Note the progress and stop here if the job is no longer ours.

        Raises:
            Canceled: the caller stopped the job.
            LeaseLost: the lease ran out, or another attempt owns the job.
        """
        self.progress = (step, steps)
        self.check()

    def stop(self, why: RenderError) -> None:
        """Let the renderer stop, at once if it waits; the first reason counts."""
        self.stopped = self.stopped or why
        self.woken.set()

    def check(self) -> None:
        """Raise what ``on_step`` raises; also true to a process that was frozen, as it asks the clock itself."""
        if self.stopped is not None:
            raise self.stopped
        if not self.is_fresh:
            raise LeaseLost("The lease could not be renewed in time.")

    def pause(self, seconds: float) -> bool:
        """Wait, but not after the job was stopped or something was said of it, which is the answer.

        Raises:
            Canceled, LeaseLost: as ``on_step``.
        """
        woken = self.woken.wait(seconds)
        self.woken.clear()
        self.check()
        return woken

    @property
    def is_fresh(self) -> bool:
        """Whether the database may still count on this attempt."""
        return time.monotonic() - self.renewed_at < self.lease


class LeaseKeeper:
    """One thread of a worker process: renews, writes progress, hears of cancels, beats."""

    def __init__(
        self, database: Database, *, lease: float, renewal: float, beat: Callable[[], None], presence: int | None = None
    ) -> None:
        """``lease`` and ``renewal`` are in seconds; ``beat`` is called as often as leases are renewed.

        ``presence`` is the key of the lock by which others see that this process is there.
        """
        self._presence = presence
        self._database = database
        self._lease = lease
        self._renewal = renewal
        self._beat = beat
        self._held: dict[tuple[UUID, int], Held] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._renewed_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; leases that are still held run out by themselves."""
        self._ended.set()
        self._thread.join(timeout=5)

    def hold(self, claim: Claim, claimed_at: float, span: Span = OFF) -> Held:
        """Keep the lease of a fresh claim; ``claimed_at`` is the monotonic time from before the claim was sent."""
        held = Held(claim, self._lease, renewed_at=claimed_at, span=span)
        with self._lock:
            self._held[claim.uuid, claim.attempt] = held
        return held

    def let_go(self, held: Held) -> None:
        """The attempt is over."""
        with self._lock:
            self._held.pop((held.claim.uuid, held.claim.attempt), None)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._listen()
            except DatabaseUnavailable:
                self._ended.wait(RECONNECT_PAUSE)
                with suppress(DatabaseUnavailable):
                    self._tick()
            except Exception:
                log.exception("lease_keeper_failed")
                self._ended.wait(RECONNECT_PAUSE)

    def _listen(self) -> None:
        for notice in listen(
            self._database.url, (JOB_STOPPED, CALL_HINT), pause=PROGRESS_INTERVAL, presence=self._presence
        ):
            if self._ended.is_set():
                return
            if notice is not None:
                self._hear(notice)
            else:
                self._tick()

    def _hear(self, notice: Notice) -> None:
        uuid, _, attempt = notice.payload.partition(" ")
        for held in self._snapshot():
            if str(held.claim.uuid) != uuid:
                continue
            if notice.channel == JOB_STOPPED and attempt in {EVERY_ATTEMPT, str(held.claim.attempt)}:
                held.stop(Canceled("The job was stopped."))
            held.woken.set()

    def _snapshot(self) -> list[Held]:
        with self._lock:
            return list(self._held.values())

    def _tick(self) -> None:
        self._report()
        now = time.monotonic()
        if now - self._renewed_at >= self._renewal:
            self._renew(now)
            self._beat()
            self._renewed_at = now

    def _report(self) -> None:
        moved = [
            (held, progress)
            for held in self._snapshot()
            if (progress := held.progress) is not None and progress != held.reported and held.stopped is None
        ]
        if not moved:
            return
        with self._database.statements() as session:
            kept = report(
                session, [Progress(held.claim.uuid, held.claim.attempt, *progress) for held, progress in moved]
            )
        for held, progress in moved:
            held.reported = progress
            if (held.claim.uuid, held.claim.attempt) not in kept:
                with self._database.transaction() as session:
                    held.stop(_why(session, held.claim))

    def _renew(self, now: float) -> None:
        held = self._snapshot()
        pairs = [(one.claim.uuid, one.claim.attempt) for one in held]
        with self._database.transaction() as session:
            kept = attempts.renew(session, pairs, self._lease)
            lost = [(one, _why(session, one.claim)) for one in held if (one.claim.uuid, one.claim.attempt) not in kept]
        for one in held:
            if (one.claim.uuid, one.claim.attempt) in kept:
                one.renewed_at = now
        for one, why in lost:
            one.stop(why)


def _why(session: Session, claim: Claim) -> RenderError:
    """Why an attempt's write found nothing to change: a cancel may be seen here before its notice is heard."""
    if jobs.is_canceled(session, claim.uuid):
        return Canceled("The job was stopped.")
    return LeaseLost("Another attempt owns the job.")
