"""One operation on the twin and on the real repository, and whether both tell and keep the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from fluxfarm.airecord import Problem
from fluxfarm.errors import Conflict, NotFound
from fluxfarm.jobs import Lane
from storage.database import Database
from storage.repository import attempts, dispatch, followers, jobs, turns
from storage.repository.attempts import Outcome
from storage.repository.jobs import NewJob
from storage.repository.progress import Progress, report
from storage.repository.turns import Claim as RealClaim
from storage.repository.turns import Claimant
from tests.making import make_request
from tests.simulation.rules import LOST, POISON, Claim, Rules
from tests.simulation.tickets import QUEUED, RUNNING, JobRow

WEIGHTS: Final = {UUID(int=1): 1.0, UUID(int=2): 2.0}
OWNERS: Final = tuple(WEIGHTS)
LEASE: Final = 30.0
CLAIMANT: Final = Claimant(worker_id=UUID(int=9), worker="w", provider="local", lease=LEASE)
MAX_ATTEMPTS: Final = 3
ANY: Final = 10
TOLERANCE: Final = 0.01  #: seconds; the twin's clock is the database's, which stands still in a transaction

CLOCK: Final = "SELECT extract(epoch FROM now())::float"

Op = tuple[Any, ...]

FORGET: Final = (
    "DELETE FROM jobs; DELETE FROM tenant_shares; DELETE FROM campaign_shares; DELETE FROM queue_clocks"
    "; DELETE FROM erasures"
)
SHIFT: Final = """
    UPDATE jobs SET lease_expires_at = lease_expires_at - make_interval(secs => :by), run_after = run_after -
        make_interval(secs => :by), deadline = deadline - make_interval(secs => :by), dispatched_at = dispatched_at -
        make_interval(secs => :by), finished_at = finished_at - make_interval(secs => :by);
    UPDATE attempts SET ended_at = ended_at - make_interval(secs => :by)
"""
JOBS: Final = """
    SELECT uuid, status, attempt, step, steps, error ->> 'code' AS error,
           extract(epoch FROM lease_expires_at - now())::float AS lease_expires_at,
           extract(epoch FROM run_after - now())::float AS run_after,
           extract(epoch FROM dispatched_at - now())::float AS dispatched_at,
           extract(epoch FROM finished_at - now())::float AS finished_at,
           (SELECT json_agg(json_build_array(number, status, error ->> 'code', swept,
                   extract(epoch FROM ended_at - now())) ORDER BY number)
              FROM attempts WHERE job_uuid = uuid) AS attempts,
           (SELECT json_agg(json_build_array(n, attempt, object_key) ORDER BY n) FROM images WHERE job_uuid = uuid)
             AS images,
           (SELECT json_agg(coalesce(payload ->> 'status', kind) ORDER BY id) FROM events WHERE job_uuid = uuid)
             AS events
      FROM jobs ORDER BY seq
"""
SHARES: Final = """
    SELECT queue, tenant_id, '-', time, campaign_clock FROM tenant_shares
    UNION ALL SELECT queue, tenant_id, 'c' || campaign, time, 0 FROM campaign_shares
    UNION ALL SELECT queue, NULL, '', time, 0 FROM queue_clocks
"""


def problem(code: str, *, retryable: bool = True) -> Problem:
    return Problem(code=code, message="Told.", retryable=retryable)


class Pair:
    """The twin and the real repository side by side."""

    def __init__(self, database: Database, twin: Rules) -> None:
        self._database = database
        self.twin = twin
        self._skipped = 0.0
        self.now = 0.0
        self._ids: list[UUID] = []
        self._claims: list[tuple[Claim, RealClaim]] = []
        self.told: list[str] = []
        with database.engine.begin() as connection:
            connection.execute(text(FORGET))

    def run(self, op: Op) -> None:
        """Do it on both; raises AssertionError where they differ."""
        name, *arguments = op
        with self._database.transaction() as session:
            self.now = self._skipped + session.execute(text(CLOCK)).scalar_one()
            mine, real = getattr(self, "_" + name)(session, *arguments)
            session.flush()
            self.told.append(f"{name}{tuple(arguments)} -> {mine}")
            assert mine == real, f"the twin tells {mine}, the repository {real}"
            self._compare(session)

    def _compare(self, session: Session) -> None:
        rows = session.execute(text(JOBS)).all()
        mine = [self._own_view(job) for job in self.twin.jobs.values()]
        theirs = [self._real_view(row) for row in rows]
        for own, (seen, times) in zip(mine, theirs, strict=True):
            assert own[0] == seen
            for here, there in zip(own[1], times, strict=True):
                assert (here is None) == (there is None), f"{own} {seen} {times}"
                assert here is None or there is None or abs(here - there) < TOLERANCE, f"{own} {seen} {times}"
        shares: dict[tuple[Any, ...], tuple[float, float]] = {}
        for queue, tenant, kind, time, clock in session.execute(text(SHARES)):
            shares[queue, tenant, kind] = time, clock
        twin = self.twin
        wanted: dict[tuple[Any, ...], tuple[float, float]] = {
            (queue, None, ""): (time, 0.0) for queue, time in twin.clocks.items()
        }
        wanted |= {(queue, owner, "-"): share for (queue, owner), share in twin.tenant_shares.items()}
        wanted |= {(queue, owner, "c" + name): (t, 0.0) for (queue, owner, name), t in twin.campaign_shares.items()}
        assert wanted == shares

    def _own_view(self, job: JobRow) -> tuple[tuple[Any, ...], list[float | None]]:
        rows = [[n, row.status.value, row.error, row.swept] for n, row in job.attempts.items()]
        seen = (
            self._ids[job.id], job.status, job.attempt, job.step, job.steps, job.error, rows,
            [list(image) for image in job.images], job.events,
        )  # fmt: skip
        times = [job.lease_expires_at, job.run_after, job.dispatched_at, job.finished_at]
        times += [row.ended_at for row in job.attempts.values()]
        return seen, [None if time is None else time - self.now for time in times]

    def _real_view(self, row: Any) -> tuple[tuple[Any, ...], list[float | None]]:
        rows = row.attempts or []
        seen = (
            row.uuid, row.status, row.attempt, row.step, row.steps, row.error, [one[:4] for one in rows],
            row.images or [], row.events or [],
        )  # fmt: skip
        times = [row.lease_expires_at, row.run_after, row.dispatched_at, row.finished_at]
        return seen, times + [one[4] for one in rows]

    def _job(self, index: int) -> tuple[int, UUID]:
        """One of the jobs that wait; from 10 on one of all made so far, or one that never was."""
        if not self._ids:
            return -1, UUID(int=7)
        waiting = [job.id for job in self.twin.jobs.values() if job.status is QUEUED]
        ids = waiting if waiting and index < ANY else range(len(self._ids))
        id_ = ids[index % len(ids)]
        return id_, self._ids[id_]

    def _names(self, ids: list[int]) -> list[UUID]:
        return [self._ids[id_] for id_ in ids]

    # what is done

    def _create(
        self, session: Session, owner: int, lane: int, campaign: str, priority: int, deadline: int | None, steps: int
    ) -> tuple[Any, Any]:
        id_ = len(self._ids)
        uuid = UUID(int=1000 + id_)
        job = jobs.create(
            session,
            NewJob(
                uuid=uuid, tenant_id=OWNERS[owner], request=make_request(steps=steps), prompt_object={},
                queue="local", lane=list(Lane)[lane], priority=priority, campaign=campaign,
            ),
        )  # fmt: skip
        if deadline is not None:
            session.execute(
                text("UPDATE jobs SET deadline = now() + make_interval(secs => :s) WHERE uuid = :u"),
                {"s": deadline, "u": uuid},
            )
        self._ids.append(uuid)
        until = None if deadline is None else self.now + deadline
        self.twin.create(
            JobRow(
                id=id_, tenant=OWNERS[owner], queue="local", lane=lane, campaign=campaign, priority=priority,
                gpu_seconds=job.gpu_seconds, deadline=until, steps=steps,
            )
        )  # fmt: skip
        return None, None

    def _wait(self, session: Session, seconds: int) -> tuple[Any, Any]:
        self._skipped += seconds
        self.now += seconds
        for statement in SHIFT.split(";"):
            session.execute(text(statement), {"by": seconds})
        return None, None

    def _claimed(self, mine: Claim | None, real: RealClaim | None) -> tuple[Any, Any]:
        if mine is not None and real is not None:
            self._claims.append((mine, real))
        return (
            None if mine is None else (self._ids[mine[0]], mine[1]),
            None if real is None else (real.uuid, real.attempt),
        )

    def _claim(self, session: Session, index: int) -> tuple[Any, Any]:
        id_, uuid = self._job(index)
        real = turns.claim(session, uuid, CLAIMANT)
        return self._claimed(self.twin.claim(self.now, id_, LEASE), real)

    def _take(self, session: Session, index: int) -> tuple[Any, Any]:
        id_, uuid = self._job(index)
        claims = followers.take_together(session, "local", uuid, CLAIMANT, lambda _: 1)
        return self._claimed(self.twin.take_turn(self.now, "local", id_, LEASE), claims[0] if claims else None)

    def _together(self, session: Session, index: int, most: int) -> tuple[Any, Any]:
        id_, uuid = self._job(index)
        real = followers.take_together(session, "local", uuid, CLAIMANT, lambda _: most)
        mine = self.twin.take_together(self.now, "local", id_, LEASE, most)
        told = [(self._ids[job], attempt) for job, attempt in mine]
        found = [(claim.uuid, claim.attempt) for claim in real]
        if told == found:
            self._claims += zip(mine, real, strict=True)
            passed_on = [job.id for job in self.twin.jobs.values() if job.dispatched_at == self.now]
            self._spread_out(session, passed_on)
        return told, found

    def _held(self, index: int) -> tuple[Claim, RealClaim]:
        """One of the claims that count; from 10 on one of all made so far, perhaps long lost."""
        if not self._claims:
            lost = RealClaim(UUID(int=7), OWNERS[0], 1, make_request(), 0.0)
            return (-1, 1), lost
        counting = [one for one in self._claims if self._counts(one[0])]
        claims = counting if counting and index < ANY else self._claims
        return claims[index % len(claims)]

    def _counts(self, claim: Claim) -> bool:
        job = self.twin.jobs.get(claim[0])
        return job is not None and job.status is RUNNING and job.attempt == claim[1]

    def _renew(self, session: Session, first: int, second: int) -> tuple[Any, Any]:
        held = [self._held(first), self._held(second)]
        mine = self.twin.renew(self.now, [one for one, _ in held], LEASE)
        real = attempts.renew(session, [(one.uuid, one.attempt) for _, one in held], LEASE)
        return {(self._ids[id_], n) for id_, n in mine}, real

    def _report(self, session: Session, index: int, step: int) -> tuple[Any, Any]:
        mine, real = self._held(index)
        told = Progress(real.uuid, real.attempt, step, 6)
        return self.twin.report(mine, step, 6), report(session, [told]) == {(real.uuid, real.attempt)}

    def _finish(self, session: Session, index: int, images: int, render: float) -> tuple[Any, Any]:
        mine, real = self._held(index)
        keys = [f"{real.uuid}/{real.attempt}/{n}" for n in range(images)]
        rows = [
            {
                "n": n, "object_key": key, "seed": 1, "width": 64, "height": 64, "content_type": "image/webp",
                "size_bytes": 1, "sha256": "0",
            }
            for n, key in enumerate(keys)
        ]  # fmt: skip
        outcome = Outcome(images=rows, timings={"render": render}, model_revision="r")
        return self.twin.finish(self.now, mine, keys, render), attempts.finish(session, real, outcome)

    def _fail(self, session: Session, index: int, retryable: bool, spread: float) -> tuple[Any, Any]:
        mine, real = self._held(index)
        told = self.twin.fail(self.now, mine, "broke", retryable=retryable, max_attempts=MAX_ATTEMPTS, spread=spread)
        found = attempts.fail(session, real, problem("broke", retryable=retryable), max_attempts=MAX_ATTEMPTS)
        if found is QUEUED:
            longest = min(attempts.BACKOFF_CAP, attempts.BACKOFF_BASE * 2**real.attempt)
            drawn = session.scalar(
                text("SELECT extract(epoch FROM run_after - now())::float FROM jobs WHERE uuid = :u"), {"u": real.uuid}
            )
            assert drawn is not None
            assert 0 <= drawn <= longest
            session.execute(
                text("UPDATE jobs SET run_after = now() + make_interval(secs => :s) WHERE uuid = :u"),
                {"s": spread * longest, "u": real.uuid},
            )
        return told, found

    def _give_back(self, session: Session, index: int) -> tuple[Any, Any]:
        mine, real = self._held(index)
        return self.twin.give_back(self.now, mine), attempts.give_back(session, real)

    def _close_lost(self, session: Session, index: int) -> tuple[Any, Any]:
        mine, real = self._held(index)
        told = self.twin.close_lost(self.now, mine, "lease_lost")
        return told, attempts.close_lost(session, real, problem("lease_lost"))

    def _mark_swept(self, session: Session, index: int) -> tuple[Any, Any]:
        mine, real = self._held(index)
        self.twin.mark_swept(mine)
        attempts.mark_swept(session, real.uuid, real.attempt)
        return None, None

    def _expire(self, session: Session) -> tuple[Any, Any]:
        mine = self.twin.expire(self.now, max_attempts=MAX_ATTEMPTS)
        real = attempts.expire(session, max_attempts=MAX_ATTEMPTS, poison=problem(POISON), lost=problem(LOST))
        return set(self._names([id_ for id_, _ in mine])), set(real)

    def _unswept(self, session: Session) -> tuple[Any, Any]:
        mine = self.twin.unswept(self.now, older_than=4 * LEASE)
        real = attempts.unswept(session, older_than=4 * LEASE)
        return {(self.twin.jobs[i].tenant, self._ids[i], n) for i, n in mine}, set(real)

    def _either(self, mine: Callable[[], object], real: Callable[[], object]) -> tuple[Any, Any]:
        told: list[str] = []
        for call in (mine, real):
            try:
                call()
            except (NotFound, Conflict) as error:
                told.append(error.code)
            else:
                told.append("done")
        return told[0], told[1]

    def _cancel(self, session: Session, owner: int, index: int) -> tuple[Any, Any]:
        id_, uuid = self._job(index)
        return self._either(
            lambda: self.twin.cancel(self.now, OWNERS[owner], id_, "canceled"),
            lambda: jobs.cancel(session, OWNERS[owner], uuid, problem("canceled")),
        )

    def _erase(self, session: Session, owner: int, index: int) -> tuple[Any, Any]:
        id_, uuid = self._job(index)
        return self._either(
            lambda: self.twin.erase(self.now, OWNERS[owner], id_),
            lambda: jobs.erase(session, OWNERS[owner], uuid),
        )

    def _spread_out(self, session: Session, ids: list[int]) -> None:
        """One statement marks all at the same time; apart, the order in which they are sent again is defined."""
        for place, id_ in enumerate(ids):
            row = self.twin.jobs[id_]
            assert row.dispatched_at is not None
            row.dispatched_at += place * 1e-6
            session.execute(
                text("UPDATE jobs SET dispatched_at = dispatched_at + make_interval(secs => :s) WHERE uuid = :u"),
                {"s": place * 1e-6, "u": self._ids[id_]},
            )

    def _pick(self, session: Session, room: int) -> tuple[Any, Any]:
        mine = self.twin.pick(self.now, "local", room)
        real = dispatch.pick(session, "local", room)
        told = self._names(mine)
        if told == real:
            self._spread_out(session, mine)
        return told, real

    def _stale(self, session: Session, gap: int) -> tuple[Any, Any]:
        mine = self.twin.stale(self.now, "local", older_than=10.0, gap=gap)
        real = dispatch.stale(session, "local", older_than=10.0, gap=gap)
        if set(self._names(mine)) == set(real):
            self._spread_out(session, mine)
        return set(self._names(mine)), set(real)

    def _return_ticket(self, session: Session, index: int) -> tuple[Any, Any]:
        id_, uuid = self._job(index)
        self.twin.return_ticket("local", id_)
        dispatch.return_ticket(session, "local", uuid)
        return None, None

    def _release(self, session: Session, first: int, second: int) -> tuple[Any, Any]:
        pairs = [self._job(first), self._job(second)]
        self.twin.release([id_ for id_, _ in pairs])
        dispatch.release(session, [uuid for _, uuid in pairs])
        return None, None

    def _ripen(self, session: Session) -> tuple[Any, Any]:
        return self.twin.ripen(self.now), dispatch.ripen(session)

    def _overdue(self, session: Session) -> tuple[Any, Any]:
        mine = self.twin.overdue(self.now, "deadline")
        return set(self._names(mine)), set(dispatch.overdue(session, problem("deadline")))

    def _look(self, session: Session) -> tuple[Any, Any]:
        twin = self.twin
        size = dispatch.SMALLEST_WINDOW  # no worker is registered here
        mine = twin.queues(), twin.in_flight("local"), twin.room("local", size), sorted(twin.dispatched_queues())
        real = (
            dispatch.queues(session),
            dispatch.in_flight(session, "local"),
            dispatch.room(session, "local", 2.0),
            sorted(dispatch.dispatched_queues(session)),
        )
        return mine, real


def story(pair: Pair) -> str:
    """The operations so far, with what each told."""
    return json.dumps(pair.told, indent=1, default=str)
