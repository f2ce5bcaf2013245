"""Who acts in a walk: workers, schedulers, callers; each ``yield`` is a point at which it can die, freeze or dawdle.

The steps are those of ``workers/render.py`` and ``sweeping.py``, ``storage/dispatcher.py`` and ``api/routes/jobs.py``.
"""

# ruff: noqa: ARG002  # every actor is told who it is

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress

from fluxfarm.errors import Conflict, NotFound
from fluxfarm.jobs import JobState
from tests.simulation.rules import Claim
from tests.simulation.tickets import JobRow
from tests.simulation.world import (
    BATCH,
    LEASE,
    MAX_ATTEMPTS,
    PATIENCE,
    REMOTE,
    SWEEP_AFTER,
    WINDOW,
    Held,
    Process,
    Steps,
    Violation,
    World,
)


class Actors(World):
    """Everyone, as generators."""

    sweep_after = SWEEP_AFTER

    # the worker

    def render(self, me: Process, ticket: int) -> Steps:
        """One ticket: claim, draw, put, finish."""
        yield  # waits for the device
        if self.hit(0.03):
            self.hand_back(me, ticket)
            return
        before = self.now
        claims = yield from self.take(me, ticket)
        me.in_hand = 0
        if not claims:
            self.losses[me.queue] += 1  # what it named can no longer start in time
            return
        self.look_at_tickets(me.queue)
        self.fresh.update(dict.fromkeys(claims, self.now))
        if self.hit(0.02):
            return  # the answer was lost: nobody knows of the claims
        for claim in claims[1:]:
            self.join(me, self.draw_along, Held(claim, before))
        me.held = held = Held(claims[0], before)
        yield
        if me.queue == REMOTE:
            yield from self.draw_remotely(me, held)
        else:
            yield from self.draw(me, held)
        me.held = None

    def draw_along(self, me: Process, held: Held) -> Steps:
        """A follower: drawn and delivered beside the leader, and it dies with it."""
        me.held = held
        yield
        yield from self.draw(me, held)
        me.held = None

    def join(self, leader: Process, what: Callable[[Process, Held], Steps], held: Held) -> None:
        raise NotImplementedError

    def hand_back(self, me: Process, ticket: int) -> None:
        """The process was told to stop before it claimed."""
        before = self.record.in_flight(me.queue)
        self.record.release([ticket])
        me.in_hand = 0
        self.losses[me.queue] += 1 - before + self.record.in_flight(me.queue)

    def take(self, me: Process, ticket: int) -> Generator[None, None, list[Claim]]:
        """One transaction."""
        yield from ()
        marks = self.record.in_flight(me.queue)
        most = BATCH if me.queue != REMOTE and self.seed % 3 == 0 else 1
        claims = self.record.take_together(self.clock(me), me.queue, ticket, LEASE, most)
        spent = marks - self.record.in_flight(me.queue)
        self.extras[me.queue] += max(0, spent - 1) if claims else 0  # nobody was left to pass them on to
        return claims

    def draw(self, me: Process, held: Held) -> Steps:
        for step in (1, 2):
            if self.is_stopped(held):
                yield from self.abandon(me, held)
                return
            if self.is_poison(held.claim[0]):
                self.kill(me)
                yield
                return  # only while the walk drains, where one process plays them all
            if not me.cut and not self.record.report(held.claim, step, 2):
                held.stopped = held.stopped or "lease_lost"
            yield
        if self.hit(0.06):
            yield from self.give_up(me, held, "render_failed", retryable=self.random() < 0.7)
            return
        yield from self.deliver(me, held)

    def kill(self, me: Process) -> None:
        raise NotImplementedError

    def is_poison(self, id_: int) -> bool:
        """A job that kills whoever draws it: one of twenty."""
        return (self.seed + id_) % 20 == 0

    def draw_remotely(self, me: Process, held: Held) -> Steps:
        """Rule 5 of the design: the intent is committed first, then one POST, then the provider's id."""
        claim = held.claim
        found = self.begin_submit(claim)
        yield
        if found == "lost" or self.is_stopped(held):
            yield from self.abandon(me, held)
            return
        if found == "post":
            if self.hit(0.15):
                self.record.note_remote(*claim, None)
                yield from self.give_up(me, held, "provider_busy", retryable=True)
                return
            self.pay(claim)
            yield
            if self.hit(0.15):
                found = "unknown"
            else:
                self.record.note_remote(*claim, claim[1])
        if found == "unknown":
            for _ in range(2):
                yield  # a webhook may still tell
            intent = self.record.intents.get(claim[0])
            if intent is None or intent.remote_id is None:
                yield from self.give_up(me, held, "outcome_unknown", retryable=False)
                return
        yield
        yield from self.deliver(me, held)

    def begin_submit(self, claim: Claim) -> str:
        return self.record.begin_submit(claim)

    def deliver(self, me: Process, held: Held) -> Steps:
        """Put every image under the attempt's own prefix, then finish."""
        claim = held.claim
        keys: list[str] = []
        for n in range(self.wanted[claim[0]]):
            if self.is_stopped(held):
                yield from self.abandon(me, held)
                return
            yield  # encodes
            lucky = not self.hit(0.05)
            if lucky or self.random() < 0.5:
                keys.append(self.put(claim, n))
            if not lucky:  # an error, or the answer was lost
                yield from self.give_up(me, held, "store_unavailable", retryable=True)
                return
            yield
        while True:
            answered = not me.cut and not self.hit(0.12)
            if answered or (not me.cut and self.random() < 0.5):
                done = self.finish(claim, keys)
                if answered:
                    break
            yield
            if self.now - held.renewed_at >= LEASE:
                yield from self.abandon(me, held)
                return
        if not done:
            yield from self.abandon(me, held)

    def finish(self, claim: Claim, keys: list[str]) -> bool:
        return self.record.finish(self.now, claim, keys, 1.0)

    def give_up(self, me: Process, held: Held, code: str, *, retryable: bool) -> Steps:
        while me.cut or self.hit(0.1):
            yield
            if self.now - held.renewed_at >= LEASE:
                yield from self.abandon(me, held)
                return
        spread = self.random()
        self.record.fail(self.now, held.claim, code, retryable=retryable, max_attempts=MAX_ATTEMPTS, spread=spread)
        me.held = None
        yield from self.sweep_own(held.claim)

    def abandon(self, me: Process, held: Held) -> Steps:
        """The job is no longer ours, or nobody can tell; only what surely lost is taken back."""
        yield
        claim = held.claim
        if held.stopped == "canceled":
            self.look_whether_healthy(claim)
        if self.may_fail(held) and (me.cut or self.hit(0.1)):
            yield from self.abandon_blindly(held)
            return
        if self.close_lost(held):
            yield from self.sweep_own(claim)

    def abandon_blindly(self, held: Held) -> Steps:
        """The record can't be asked who won: nothing is deleted, the sweeper will."""
        yield from ()

    def close_lost(self, held: Held) -> bool:
        """False: a finish whose answer never came has won all the same."""
        return self.record.close_lost(self.now, held.claim, held.stopped or "lease_lost")

    def sweep_own(self, claim: Claim) -> Steps:
        yield
        self.delete_prefix(*claim)
        yield
        self.record.mark_swept(claim)

    def is_stopped(self, held: Held) -> bool:
        return held.stopped is not None or self.now - held.renewed_at >= LEASE

    def may_fail(self, held: Held) -> bool:
        """Who was silent for four leases is swept behind; if it died after it wrote once more, an object would stay."""
        return self.now - held.renewed_at <= SWEEP_AFTER

    def look_whether_healthy(self, claim: Claim) -> None:
        job = self.record.jobs.get(claim[0])
        if job is not None and self.record.counts(job, claim[1]) and self.now - self.fresh[claim] < LEASE:
            raise Violation(f"attempt {claim} was healthy and was told to stop")

    # schedulers: dispatch, sweep, webhooks

    def dispatch(self, me: Process) -> Steps:
        room = self.record.room(me.queue, WINDOW)
        chosen = self.record.pick(self.now, me.queue, room) if room > 0 else []
        me.unsent = len(chosen)
        unsent = []
        for id_ in chosen:
            yield
            sent = not self.hit(0.05)
            if sent or self.random() < 0.5:
                self.send(me.queue, id_)
                self.extras[me.queue] += not sent
            if sent:
                me.unsent -= 1
            else:
                unsent.append(id_)
        if unsent:
            yield
            before = self.record.in_flight(me.queue)
            self.record.release(unsent)
            after = self.record.in_flight(me.queue)
            self.losses[me.queue] += len(unsent) - before + after  # another ticket took its job
            me.unsent = 0

    def expire(self, me: Process) -> Steps:
        self.taken(self.record.expire(self.clock(me), max_attempts=MAX_ATTEMPTS))
        yield

    def resend(self, me: Process) -> Steps:
        """Send again only the gap between the marks and the tickets."""
        queue = me.queue
        before, others = self.excuses(queue), self.under_way(queue)
        marks = self.record.in_flight(queue)
        yield
        gap = self.gap(marks, len(self.brokers[queue]))
        if gap <= 0:
            return
        me.unsent = gap
        yield
        lost = self.record.stale(self.now, queue, older_than=PATIENCE, gap=gap)
        me.unsent = len(lost)
        for sent, id_ in enumerate(lost):
            yield
            me.unsent -= 1
            if self.hit(0.05):
                self.losses[queue] += 1
                continue
            if others or self.excuses(queue) > before + sent or self.under_way(queue) > me.unsent:
                self.extras[queue] += 1  # what is in somebody's hands looks like a gap
                before += 1
            self.resent[queue] += 1
            self.send(queue, id_)
            self.look_at_tickets(queue)

    def gap(self, marks: int, tickets: int) -> int:
        return marks - tickets

    def ripen(self, me: Process) -> Steps:
        self.record.ripen(self.now)
        yield
        for id_ in self.record.overdue(self.now, "deadline"):
            job = self.record.jobs[id_]
            self.extras[job.queue] += job.dispatched_at is not None

    def sweep_objects(self, me: Process) -> Steps:
        for claim in self.record.unswept(self.now, older_than=self.sweep_after):
            yield
            self.delete_prefix(*claim)
            yield
            self.record.mark_swept(claim)
        for id_, at in list(self.record.erasures.items()):
            yield
            self.delete_prefix(id_, None)
            yield
            if at < self.now - SWEEP_AFTER:
                self.record.erasures.pop(id_, None)

    def post_webhooks(self, me: Process) -> Steps:
        """An outbox row goes when its delivery is sure."""
        for row in list(self.record.outbox):
            yield
            if self.hit(0.1):
                continue  # refused, or too slow
            self.receive(*row)
            if self.hit(0.1):
                continue  # its answer was lost
            yield
            self.forget(row)

    def forget(self, row: tuple[int, JobState]) -> None:
        with suppress(ValueError):
            self.record.outbox.remove(row)

    # callers

    def cancel(self, job: JobRow) -> None:
        self.note(f"the caller cancels job {job.id}")
        marked = job.dispatched_at is not None and job.status.value == "QUEUED"
        with suppress(Conflict):
            self.record.cancel(self.now, job.tenant, job.id, "canceled")
            self.extras[job.queue] += marked

    def erase(self, me: Process, job: JobRow) -> Steps:
        self.note(f"the caller erases job {job.id}")
        self.extras[job.queue] += job.dispatched_at is not None and job.status.value == "QUEUED"
        with suppress(NotFound):
            self.record.erase(self.now, job.tenant, job.id)
        self.hide(job.id)
        yield
        self.delete_prefix(job.id, None)
