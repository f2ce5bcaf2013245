"""The twin of ``repository/attempts.py``, ``jobs.py`` and ``turns.py`` in memory, for walks by the ten thousand.

``test_rules.py`` holds it to the real repository over the real Postgres: without that it would prove nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from fluxfarm.errors import Conflict, NotFound
from fluxfarm.jobs import JobState, sources
from storage.repository.attempts import BACKOFF_BASE, BACKOFF_CAP
from tests.simulation.tickets import CANCELED, FAILED, QUEUED, RUNNING, SUCCESS, AttemptRow, JobRow, Tickets

Claim = tuple[int, int]  #: a job's id and the number of the attempt

MAY_CANCEL: Final = sources(CANCELED)
LOST: Final = "worker_lost"
POISON: Final = "poison"


class Rules(Tickets):
    """The record; ``now`` is the database's clock, and every method is one transaction."""

    # jobs.py

    def create(self, job: JobRow) -> None:
        self.jobs[job.id] = job

    def cancel(self, now: float, tenant: UUID, id_: int, code: str) -> None:
        job = self._owned(tenant, id_)
        if not self.may_cancel(job):
            raise Conflict(f"Job {id_} is already {job.status}.")
        job.status = CANCELED
        job.finished_at = now
        job.lease_expires_at = None
        job.error = code
        for row in job.attempts.values():
            if row.status is RUNNING:
                row.status, row.ended_at = CANCELED, now
        self.add_status(job, CANCELED)
        self.announce_stop(id_, job.attempt)

    def may_cancel(self, job: JobRow) -> bool:
        return job.status in MAY_CANCEL

    def erase(self, now: float, tenant: UUID, id_: int) -> None:  # noqa: ARG002
        """``now`` is not used by the rule; whoever hangs more on an erasure may need it."""
        job = self._owned(tenant, id_)
        del self.jobs[id_]
        self.announce_stop(id_, job.attempt)

    def _owned(self, tenant: UUID, id_: int) -> JobRow:
        job = self.jobs.get(id_)
        if job is None or job.tenant != tenant:
            raise NotFound(f"There is no job {id_}.")
        return job

    # attempts.py

    def claim(self, now: float, id_: int, lease: float) -> Claim | None:
        job = self.jobs.get(id_)
        if job is None or not self.may_claim(now, job):
            return None
        job.status = RUNNING
        job.attempt += 1
        job.lease_expires_at = now + lease
        job.run_after = job.dispatched_at = None
        job.step = 0
        job.attempts[job.attempt] = AttemptRow()
        self.add_status(job, RUNNING)
        return id_, job.attempt

    def may_claim(self, now: float, job: JobRow) -> bool:
        return (
            job.status is QUEUED
            and (job.run_after is None or job.run_after <= now)
            and (job.deadline is None or job.deadline > now)
        )

    def take_turn(self, now: float, queue: str, ticket: int, lease: float) -> Claim | None:
        following = self.take_next(now, queue)
        if following is None:
            return None
        id_, was_dispatched = following
        if not was_dispatched:
            self.return_ticket(queue, ticket)
        return self.claim(now, id_, lease)

    def take_together(self, now: float, queue: str, ticket: int, lease: float, most: int) -> list[Claim]:
        flows, lines = self._waiting(now, queue, undispatched=False)
        following = self.next_in(queue, flows, lines)
        if following is None:
            return []
        id_, was_dispatched = following
        claims = [self.claim(now, id_, lease)]
        spent = int(was_dispatched)
        leader = self.jobs[id_]
        if leader.attempt == 1:
            for other, had_ticket in self.followers(queue, leader, most - 1, flows, lines):
                claims.append(self.claim(now, other, lease))
                spent += had_ticket
        self.settle(now, queue, ticket, spent)
        return [claim for claim in claims if claim is not None]

    def renew(self, now: float, held: Sequence[Claim], lease: float) -> set[Claim]:
        kept = set()
        for claim in held:
            job = self._held(claim)
            if job is not None:
                job.lease_expires_at = now + lease
                kept.add(claim)
        return kept

    def report(self, claim: Claim, step: int, steps: int) -> bool:
        job = self._held(claim)
        if job is None:
            return False
        job.step, job.steps = step, steps
        job.events.append("progress")
        return True

    def finish(self, now: float, claim: Claim, keys: Sequence[str], render: float) -> bool:
        job = self._held(claim)
        if job is None:
            return self.is_finished(claim)
        self._end(job, SUCCESS, None)
        job.finished_at = now
        job.step = job.steps
        job.images.extend((n, claim[1], key) for n, key in enumerate(keys))
        row = job.attempts[claim[1]]
        row.status, row.ended_at, row.swept = SUCCESS, now, True
        self.correct(job, render)
        self.add_status(job, SUCCESS)
        return True

    def is_finished(self, claim: Claim) -> bool:
        job = self.jobs.get(claim[0])
        return job is not None and job.status is SUCCESS and job.attempt == claim[1]

    def fail(
        self, now: float, claim: Claim, code: str, *, retryable: bool, max_attempts: int, spread: float
    ) -> JobState | None:
        """``spread``, from 0 to 1, is the database's random number."""
        job = self._held(claim)
        self._close(now, claim, FAILED, code)
        if job is None:
            return None
        if retryable and claim[1] < max_attempts:
            job.run_after = now + spread * min(BACKOFF_CAP, BACKOFF_BASE * 2 ** claim[1])
            target = QUEUED
        else:
            job.finished_at = now
            target = FAILED
        self._end(job, target, code)
        self.add_status(job, target)
        return target

    def give_back(self, now: float, claim: Claim) -> bool:
        job = self._held(claim)
        self._close(now, claim, CANCELED)
        if job is None:
            return False
        self._end(job, QUEUED, job.error)
        self.add_status(job, QUEUED)
        return True

    def close_lost(self, now: float, claim: Claim, code: str) -> bool:
        self._close(now, claim, CANCELED, code)
        row = self._attempt(claim)
        return row is None or row.status is not SUCCESS

    def mark_swept(self, claim: Claim) -> None:
        row = self._attempt(claim)
        if row is not None:
            row.swept = True

    def expire(self, now: float, *, max_attempts: int) -> list[Claim]:
        """Gives the attempts that were taken away."""
        taken = []
        for job in self.jobs.values():
            if job.status is RUNNING and self.is_expired(now, job):
                final = self.deaths(job) + 1 >= max_attempts
                claim = job.id, job.attempt
                self._close(now, claim, FAILED, POISON if final else LOST)
                self._end(job, FAILED if final else QUEUED, POISON if final else LOST)
                job.dispatched_at = None
                job.finished_at = now if final else None
                self.add_status(job, job.status)
                self.announce_stop(*claim)
                taken.append(claim)
        return taken

    def deaths(self, job: JobRow) -> int:
        """Workers that the job has killed so far."""
        return sum(row.error == LOST for row in job.attempts.values())

    def is_expired(self, now: float, job: JobRow) -> bool:
        return job.lease_expires_at is not None and job.lease_expires_at < now

    def unswept(self, now: float, *, older_than: float) -> list[Claim]:
        return [
            (job.id, number)
            for job in self.jobs.values()
            for number, row in job.attempts.items()
            if not row.swept and row.ended_at is not None and row.ended_at < now - older_than
        ]

    # the guards

    def _held(self, claim: Claim) -> JobRow | None:
        """The job, if exactly this attempt is running it."""
        job = self.jobs.get(claim[0])
        return job if job is not None and self.counts(job, claim[1]) else None

    def counts(self, job: JobRow, attempt: int) -> bool:
        return job.status is RUNNING and job.attempt == attempt

    def _end(self, job: JobRow, target: JobState, error: str | None) -> None:
        job.status = target
        job.lease_expires_at = None
        job.error = error

    def _attempt(self, claim: Claim) -> AttemptRow | None:
        job = self.jobs.get(claim[0])
        return None if job is None else job.attempts.get(claim[1])

    def _close(self, now: float, claim: Claim, status: JobState, error: str | None = None) -> None:
        row = self._attempt(claim)
        if row is None or row.status is not RUNNING:
            return
        row.status, row.ended_at = status, now
        if error is not None:
            row.error = error

    # events.py

    def announce_stop(self, id_: int, attempt: int) -> None:
        """Tells who listens that this attempt of the job must stop."""
