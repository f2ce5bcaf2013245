"""The table of moves is complete and closed."""

from __future__ import annotations

import pytest

from fluxfarm.jobs import TRANSITIONS, JobState, JobType, Lane, sources

FINAL = {JobState.SUCCESS, JobState.FAILED, JobState.CANCELED}


def test_every_state_has_its_row_and_the_moves_are_those_of_the_design() -> None:
    assert set(TRANSITIONS) == set(JobState)
    assert dict(TRANSITIONS) == {
        JobState.QUEUED: {JobState.RUNNING, JobState.CANCELED, JobState.FAILED},
        JobState.RUNNING: {*FINAL, JobState.QUEUED},
        **{state: set() for state in FINAL},
    }


def test_final_states_are_final_and_can_be_reached() -> None:
    assert {state for state in JobState if state.is_final} == FINAL
    for state in FINAL:
        assert JobState.RUNNING in sources(state)


@pytest.mark.parametrize("source", JobState)
@pytest.mark.parametrize("target", JobState)
def test_sources_are_the_inverse_of_the_table(source: JobState, target: JobState) -> None:
    assert (source in sources(target)) == (target in TRANSITIONS[source])


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[JobState.SUCCESS] = frozenset({JobState.QUEUED})  # type: ignore[index]


def test_words_are_those_of_the_record() -> None:
    assert [state.value for state in JobState] == ["QUEUED", "RUNNING", "SUCCESS", "FAILED", "CANCELED"]
    assert [kind.value for kind in JobType] == ["IMAGE_GENERATOR", "IMAGE_EDITOR"]


def test_interactive_is_served_before_standard_and_that_before_bulk() -> None:
    assert sorted(Lane, key=lambda lane: lane.rank) == [Lane.INTERACTIVE, Lane.STANDARD, Lane.BULK]
    assert [lane.rank for lane in Lane] == [0, 1, 2]
