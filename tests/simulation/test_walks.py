"""Twenty thousand ways to die, and every promise kept in each."""

from __future__ import annotations

import pytest

from fluxfarm.jobs import JobState
from tests.simulation.mutants import SharedKey
from tests.simulation.walk import Walk, first_caught, replay, run
from tests.simulation.world import Violation

WALKS = 20_000


def test_every_promise_is_kept_in_every_walk() -> None:
    for seed in range(WALKS):
        run(seed)


def test_the_walks_go_everywhere() -> None:
    """A simulator whose walks never meet trouble would be as silent as one of a farm without faults."""
    seen: dict[str, int] = {}
    for seed in range(2_000):
        walk = Walk(seed, traced=True)
        walk.walk()
        told = "\n".join(walk.trace or [])
        words = [*JobState, *TROUBLE, *(job.error or "" for job in walk.record.jobs.values())]
        words += [f"attempt {job.attempt}" for job in walk.record.jobs.values() if job.status is JobState.SUCCESS]
        for word in {word for word in words if word not in TROUBLE or word in told}:
            seen[word] = seen.get(word, 0) + 1
    wanted = {*JobState, *TROUBLE, *ERRORS, "attempt 1", "attempt 2", "attempt 3"} - {"QUEUED", "RUNNING"}
    assert wanted <= seen.keys()
    assert min(seen[word] for word in wanted) >= 5, seen


TROUBLE = (
    "is killed", "freezes", "goes on", "cut from the database", "is lost", "is doubled", "is flushed",
    "cancels", "erases", "is deleted", "provider accepts", "worker_lost", "store_unavailable", "provider_busy",
)  # fmt: skip
ERRORS = ("poison", "outcome_unknown", "render_failed", "canceled", "deadline")


def test_a_walk_is_told_again_by_its_seed() -> None:
    found = first_caught(SharedKey, 2_000)
    assert found is not None
    walks, promise = found
    with pytest.raises(Violation) as caught:
        run(walks - 1, SharedKey)
    told = str(caught.value)
    assert told.startswith(f"{promise} (replay({walks - 1}, SharedKey))")
    assert told.endswith(replay(walks - 1, SharedKey))
    assert f"VIOLATION: {promise}" in told
    assert len(told.splitlines()) <= 41
