"""How far the running attempts of a worker are: one statement for all of them, as it is made beside a render."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from storage.repository.events import JOB_CHANGED

#: a row that another transaction holds is passed over, not waited for: what becomes of it is seen the next time
REPORT: Final = text(
    """
    WITH ours AS (
        SELECT jobs.uuid, told.attempt, told.step, told.steps
          FROM unnest(CAST(:uuids AS uuid[]), CAST(:attempts AS integer[]),
                      CAST(:step AS integer[]), CAST(:steps AS integer[])) AS told (uuid, attempt, step, steps)
          JOIN jobs ON jobs.uuid = told.uuid
         WHERE jobs.attempt = told.attempt AND jobs.status = 'RUNNING'
    ),
    free AS (
        SELECT jobs.uuid, ours.step, ours.steps
          FROM ours JOIN jobs ON jobs.uuid = ours.uuid
         WHERE jobs.attempt = ours.attempt AND jobs.status = 'RUNNING'
           FOR NO KEY UPDATE OF jobs SKIP LOCKED
    ),
    changed AS (
        UPDATE jobs SET step = free.step, steps = free.steps
          FROM free WHERE jobs.uuid = free.uuid
        RETURNING jobs.uuid, jobs.step, jobs.steps
    ),
    noted AS (
        INSERT INTO events (job_uuid, kind, payload)
        SELECT uuid, 'progress', jsonb_build_object('step', step, 'steps', steps) FROM changed
    )
    SELECT ours.uuid, ours.attempt, pg_notify(:channel, changed.uuid::text)
      FROM ours LEFT JOIN changed ON changed.uuid = ours.uuid
    """
)


@dataclass(frozen=True, slots=True)
class Progress:
    """Steps done, of so many, in one attempt of a job."""

    uuid: UUID
    attempt: int
    step: int
    steps: int


def report(session: Session, told: Sequence[Progress]) -> set[tuple[UUID, int]]:
    """Note the progress of (job, attempt) pairs; what is missing from the answer is lost. May stand alone."""
    if not told:
        return set()
    parameters = {
        "uuids": [one.uuid for one in told],
        "attempts": [one.attempt for one in told],
        "step": [one.step for one in told],
        "steps": [one.steps for one in told],
        "channel": JOB_CHANGED,
    }
    return {(row.uuid, row.attempt) for row in session.execute(REPORT, parameters)}
