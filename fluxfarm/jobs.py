"""The states of a job and the moves between them, as data."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final


class JobState(StrEnum):
    """One vocabulary for the enum, the column, the JSON and the metrics."""

    QUEUED = "QUEUED"  #: accepted and stored; waits for its turn, its retry time or a worker
    RUNNING = "RUNNING"  #: an attempt holds the lease and renders
    SUCCESS = "SUCCESS"  #: every image is in the object store; the record names them
    FAILED = "FAILED"  #: gave up, with a stable error code and whether a retry by the caller can help
    CANCELED = "CANCELED"  #: the caller, a budget or a deadline stopped it; nothing more is rendered or billed

    @property
    def is_final(self) -> bool:
        """A final state has no next one."""
        return not TRANSITIONS[self]


TRANSITIONS: Final = MappingProxyType(
    {
        JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELED, JobState.FAILED}),
        JobState.RUNNING: frozenset({JobState.SUCCESS, JobState.FAILED, JobState.CANCELED, JobState.QUEUED}),
        JobState.SUCCESS: frozenset[JobState](),
        JobState.FAILED: frozenset[JobState](),
        JobState.CANCELED: frozenset[JobState](),
    }
)


def sources(target: JobState) -> frozenset[JobState]:
    """The states from which ``target`` can be reached in one move: the guard of a compare-and-set."""
    return frozenset(state for state, targets in TRANSITIONS.items() if target in targets)


class JobType(StrEnum):
    """What the aiRecord calls the two kinds of work."""

    IMAGE_GENERATOR = "IMAGE_GENERATOR"
    IMAGE_EDITOR = "IMAGE_EDITOR"


class Lane(StrEnum):
    """How urgent a job is; an earlier lane is served first."""

    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BULK = "bulk"

    @property
    def rank(self) -> int:
        """0 is served first."""
        return _RANKS[self]


_RANKS: Final = {lane: rank for rank, lane in enumerate(Lane)}


def diagram() -> str:
    """``TRANSITIONS`` as a Mermaid state diagram, for the lifecycle page; a test keeps the page true."""
    lines = ["stateDiagram-v2", "    [*] --> QUEUED: 202"]
    lines += [
        f"    {state} --> {target}"
        for state, targets in TRANSITIONS.items()
        for target in sorted(targets, key=list(JobState).index)
    ]
    lines += [f"    {state} --> [*]" for state in JobState if state.is_final]
    return "\n".join(lines)
