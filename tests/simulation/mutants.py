"""Broken farms, each by one small change; a simulator that misses one of them would prove nothing by its silence."""

# ruff: noqa: ARG002  # an override keeps its arguments

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from uuid import UUID

from fluxfarm.errors import NotFound
from tests.simulation.rules import Claim
from tests.simulation.tickets import RUNNING, JobRow
from tests.simulation.walk import Walk
from tests.simulation.world import LEASE, Held, Intent, Key, Process, Record, Steps


class NoFencing(Walk):
    """A write counts when the job is RUNNING, whoever runs it."""

    class record_class(Record):  # noqa: N801
        def counts(self, job: JobRow, attempt: int) -> bool:
            return job.status is RUNNING


class NoCompareAndSet(Walk):
    """A claim looks in one transaction and writes in the next, without looking again."""

    def take(self, me: Process, ticket: int) -> Generator[None, None, list[Claim]]:
        following = self.record.take_next(self.now, me.queue)
        yield
        claim = None if following is None else self.record.claim(self.now, following[0], LEASE)
        return [] if claim is None else [claim]

    class record_class(Record):  # noqa: N801
        def may_claim(self, now: float, job: JobRow) -> bool:
            return True


class SharedKey(Walk):
    """Objects are named by job and image, without the attempt."""

    def key(self, claim: Claim, n: int) -> Key:
        return claim[0], 0, n

    def delete_prefix(self, id_: int, attempt: int | None) -> None:
        super().delete_prefix(id_, None)


class EarlyDeleteOfTheOutbox(Walk):
    """A webhook's row goes before its delivery is sure."""

    def post_webhooks(self, me: Process) -> Steps:
        for row in list(self.record.outbox):
            yield
            self.forget(row)
            yield
            if not self.hit(0.1):
                self.receive(*row)


class NoLease(Walk):
    """Nobody takes jobs from the dead."""

    def expire(self, me: Process) -> Steps:
        yield


class LeaseByLocalClock(Walk):
    """Leases are given and taken by the clock of whoever does it."""

    def clock(self, process: Process) -> float:
        return self.now + process.skew


class RetryOfAnAmbiguousSubmit(Walk):
    """A paid POST whose outcome is unknown is sent again by the next attempt."""

    def begin_submit(self, claim: Claim) -> str:
        found = super().begin_submit(claim)
        if found == "unknown":
            self.record.intents[claim[0]] = Intent(claim[1])
            return "post"
        return found


class ResendOfAllStale(Walk):
    """Every old ticket is sent again, whatever the broker still holds."""

    def gap(self, marks: int, tickets: int) -> int:
        return marks


class AbandonAsksNobody(Walk):
    """A worker that lost the database with its lease deletes what it stored, though its finish may have won."""

    def abandon_blindly(self, held: Held) -> Steps:
        yield from self.sweep_own(held.claim)

    def close_lost(self, held: Held) -> bool:
        super().close_lost(held)
        return True


class FinishOnlyOnce(AbandonAsksNobody):
    """The same, and a finish that is repeated, as its answer was lost, counts as lost; each covers for the other."""

    class record_class(Record):  # noqa: N801
        def is_finished(self, claim: Claim) -> bool:
            return False


class SweepOfTheWholeJob(Walk):
    """A losing attempt deletes by the job's prefix."""

    def sweep_own(self, claim: Claim) -> Steps:
        yield
        self.delete_prefix(claim[0], None)
        self.record.mark_swept(claim)


class SweepAtOnce(Walk):
    """The sweeper does not wait until a zombie can no longer write."""

    sweep_after = 0.0


class StopForWhoeverHolds(Walk):
    """A notice to stop names the job and not the attempt."""

    def is_meant(self, claim: Claim, notice: Claim) -> bool:
        return claim[0] == notice[0]


class ErasureWithoutATrace(Walk):
    """Nobody knows of an erased job any more, so nobody sweeps what a crash or a zombie left."""

    class record_class(Record):  # noqa: N801
        def erase(self, now: float, tenant: UUID, id_: int) -> None:
            super().erase(now, tenant, id_)
            del self.erasures[id_]


class TicketNotReturned(Walk):
    """A ticket that was spent on another job leaves its own job marked."""

    class record_class(Record):  # noqa: N801
        def return_ticket(self, queue: str, ticket: int) -> None:
            pass


class TicketsOfFollowersForgotten(Walk):
    """A follower's ticket is neither passed on nor known to be too many."""

    def take(self, me: Process, ticket: int) -> Generator[None, None, list[Claim]]:
        before = self.extras[me.queue]
        claims = yield from super().take(me, ticket)
        self.extras[me.queue] = before
        return claims

    class record_class(Record):  # noqa: N801
        def settle(self, now: float, queue: str, ticket: int, spent: int) -> None:
            super().settle(now, queue, ticket, min(spent, 1))


class CancelWithoutCompareAndSet(Walk):
    """A cancel looks in one transaction and writes in the next."""

    def cancel(self, job: JobRow) -> None:
        def steps(_: Process) -> Steps:
            if not job.status.is_final and job.id in self.record.jobs:
                yield
                marks = self.record.in_flight(job.queue)
                with suppress(NotFound):
                    self.record.cancel(self.now, job.tenant, job.id, "canceled")
                self.extras[job.queue] += marks - self.record.in_flight(job.queue)

        self.start("canceler", job.queue, steps)

    class record_class(Record):  # noqa: N801
        def may_cancel(self, job: JobRow) -> bool:
            return True


class NoEndOfPoison(Walk):
    """A job that kills its worker starts again for ever."""

    class record_class(Record):  # noqa: N801
        def expire(self, now: float, *, max_attempts: int) -> list[Claim]:
            return super().expire(now, max_attempts=max_attempts + 100)


class OutboxBesideTheTransaction(Walk):
    """The webhook's row is written after the finish has been committed, if the worker still lives."""

    def finish(self, claim: Claim, keys: list[str]) -> bool:
        before = len(self.record.outbox)
        done = super().finish(claim, keys)
        if self.hit(0.02):
            del self.record.outbox[before:]
        return done


MUTANTS: tuple[type[Walk], ...] = (
    NoFencing,
    NoCompareAndSet,
    SharedKey,
    EarlyDeleteOfTheOutbox,
    NoLease,
    LeaseByLocalClock,
    RetryOfAnAmbiguousSubmit,
    ResendOfAllStale,
    FinishOnlyOnce,
    AbandonAsksNobody,
    SweepOfTheWholeJob,
    SweepAtOnce,
    StopForWhoeverHolds,
    ErasureWithoutATrace,
    TicketNotReturned,
    TicketsOfFollowersForgotten,
    CancelWithoutCompareAndSet,
    NoEndOfPoison,
    OutboxBesideTheTransaction,
)
