"""The twin does what the repository does: the same sequences on both, over the real Postgres, agree at every step."""

# ruff: noqa: ARG002  # an override keeps its arguments

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from fluxfarm.jobs import JobState
from storage.database import Database
from storage.fairness import Flow
from tests.simulation.pairs import ANY, WEIGHTS, Op, Pair, story
from tests.simulation.rules import Claim, Rules
from tests.simulation.tickets import RUNNING, JobRow

some = st.one_of(st.integers(0, 2), st.integers(0, 2), st.integers(ANY, ANY + 5))
owner = st.integers(0, 1)
spread = st.sampled_from([0.0, 0.5, 1.0])


def op(name: str, *parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Op]:
    return st.tuples(st.just(name), *parts)


create = op(
    "create", owner, st.integers(0, 2), st.sampled_from(["", "spring"]), st.integers(0, 1),
    st.sampled_from([None, None, 5, 40]), st.sampled_from([2, 6]),
)  # fmt: skip
together = op("together", some, st.integers(2, 3))
start = st.one_of(op("claim", some), op("take", some), together)
wait = op("wait", st.sampled_from([2, 11, 31, 121]))
finish = op("finish", some, st.integers(1, 2), st.sampled_from([0.5, 4.0]))
single = st.one_of(
    create,
    wait,
    start,
    finish,
    op("fail", some, st.booleans(), spread),
    op("renew", some, some),
    op("report", some, st.integers(1, 2)),
    op("give_back", some),
    op("close_lost", some),
    op("mark_swept", some),
    op("unswept"),
    op("cancel", owner, some),
    op("erase", owner, some),
    op("pick", st.integers(1, 3)),
    op("stale", st.integers(1, 2)),
    op("return_ticket", some),
    op("release", some, some),
    op("ripen"),
    op("overdue"),
    op("expire"),
    op("look"),
)
die = st.tuples(start, op("wait", st.just(31)), op("expire"))
again = st.tuples(
    start, op("fail", st.integers(0, 2), st.just(True), spread), wait, op("ripen"), start, op("give_back", some)
)
first = op("claim", st.just(ANY))
poison = st.tuples(*[first, op("wait", st.just(121)), op("expire")] * 3)
early = st.tuples(first, op("fail", st.integers(0, 2), st.just(True), st.just(1.0)), first)
pick = op("pick", st.just(1))
returned = st.tuples(create, pick, op("wait", st.just(2)), create, pick, op("return_ticket", st.integers(ANY, ANY + 2)))
twice = st.tuples(start, finish, finish)
send = st.tuples(op("pick", st.integers(1, 3)), op("wait", st.just(11)), op("stale", st.integers(1, 2)))
stray = st.tuples(op("pick", st.just(1)), create, op("take", some))
batch = st.tuples(create, create, op("pick", st.integers(1, 3)), together, together)
one = op("create", st.just(0), st.just(1), st.just(""), st.just(0), st.just(None), st.just(2))
crowd = st.tuples(one, one, one, one, op("pick", st.just(2)), op("together", st.integers(0, 2), st.just(2)))
afterwards = st.tuples(start, op("wait", st.just(31)), op("expire"), create, together)
chapter = st.one_of(
    *[st.tuples(single)] * 3, batch, crowd, afterwards, poison, early, die, again, twice, send, stray, returned
)
sequences = st.builds(
    lambda first, chapters: [*first, *(one for chapter in chapters for one in chapter)],
    st.lists(create, min_size=1, max_size=3),
    st.lists(chapter, min_size=4, max_size=14),
)
with_fixture = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.fixture
def owners(database: Database) -> Database:
    with database.engine.begin() as connection:
        for owner_id, weight in WEIGHTS.items():
            connection.execute(
                text("INSERT INTO tenants (id, name, weight) VALUES (:i, :n, :w)"),
                {"i": owner_id, "n": str(owner_id), "w": weight},
            )
    return database


def agree(database: Database, sequence: list[Op], twin: type[Rules] = Rules) -> None:
    pair = Pair(database, twin(WEIGHTS))
    try:
        for one in sequence:
            pair.run(one)
    except AssertionError as error:
        error.add_note(story(pair))
        raise


@pytest.mark.timeout(300)  # 150 sequences on the real database: a minute alone, two beside the other half of the suite
@settings(max_examples=150, deadline=None, database=None, suppress_health_check=with_fixture, print_blob=True)
@given(sequence=sequences)
def test_the_twin_tells_and_keeps_what_the_repository_does(owners: Database, sequence: list[Op]) -> None:
    agree(owners, sequence)


class ClaimsTooEarly(Rules):
    def may_claim(self, now: float, job: JobRow) -> bool:
        return job.status is JobState.QUEUED and (job.deadline is None or job.deadline > now)


class ClaimsTooLate(Rules):
    def may_claim(self, now: float, job: JobRow) -> bool:
        return job.status is JobState.QUEUED and (job.run_after is None or job.run_after <= now)


class FencesNothing(Rules):
    def counts(self, job: JobRow, attempt: int) -> bool:
        return job.status is RUNNING


class FinishesOnce(Rules):
    def is_finished(self, claim: Claim) -> bool:
        return False


class NeverPoison(Rules):
    def expire(self, now: float, *, max_attempts: int) -> list[Claim]:
        return super().expire(now, max_attempts=max_attempts + 1)


class SweepsTheWinner(Rules):
    def finish(self, now: float, claim: Claim, keys: Any, render: float) -> bool:
        done = super().finish(now, claim, keys, render)
        if done:
            self.jobs[claim[0]].attempts[claim[1]].swept = False
        return done


class KeepsTheTicket(Rules):
    def return_ticket(self, queue: str, ticket: int) -> None:
        pass


class ReturnsAnyTicket(Rules):
    def return_ticket(self, queue: str, ticket: int) -> None:
        super().return_ticket(queue, -1)


class ForgetsTheShare(Rules):
    def correct(self, job: JobRow, seconds: float) -> None:
        pass


class LosesTheError(Rules):
    def give_back(self, now: float, claim: Claim) -> bool:
        done = super().give_back(now, claim)
        if done:
            self.jobs[claim[0]].error = None
        return done


class FollowsFromAnyLane(Rules):
    def is_along(self, flow: Flow, leader: JobRow) -> bool:
        return True


class FollowsOnALaterStart(Rules):
    def may_follow(self, job: JobRow, leader: JobRow) -> bool:
        return job.steps == leader.steps


class FollowsInAnyShape(Rules):
    def may_follow(self, job: JobRow, leader: JobRow) -> bool:
        return job.attempt == 0


class KeepsTheTicketsOfFollowers(Rules):
    def settle(self, now: float, queue: str, ticket: int, spent: int) -> None:
        super().settle(now, queue, ticket, min(spent, 1))


BROKEN = [
    ClaimsTooEarly, ClaimsTooLate, FencesNothing, FinishesOnce, NeverPoison, SweepsTheWinner, KeepsTheTicket,
    ReturnsAnyTicket, ForgetsTheShare, LosesTheError, FollowsFromAnyLane, FollowsOnALaterStart, FollowsInAnyShape,
    KeepsTheTicketsOfFollowers,
]  # fmt: skip


@pytest.mark.parametrize("twin", BROKEN, ids=lambda twin: twin.__name__)
def test_a_twin_with_one_broken_rule_is_told_apart(owners: Database, twin: type[Rules]) -> None:
    tried = 0

    @settings(
        max_examples=600,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=with_fixture,
        derandomize=True,
        report_multiple_bugs=False,
    )
    @given(sequence=sequences)
    def compare(sequence: list[Op]) -> None:
        nonlocal tried
        tried += 1
        agree(owners, sequence, twin)

    with pytest.raises(AssertionError):
        compare()
    print(f"{twin.__name__} is told apart after {tried} sequences")  # noqa: T201
