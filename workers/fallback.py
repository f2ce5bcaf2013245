"""What comes after an attempt that failed: another provider, another try, or the end."""

from __future__ import annotations

from typing import Final

from fluxfarm.airecord import Problem
from fluxfarm.errors import (
    BudgetExceeded,
    DeviceLost,
    FluxfarmError,
    ModelUnavailable,
    OutOfMemory,
    ProviderAccount,
    ProviderError,
    RenderFailed,
)
from fluxfarm.jobs import JobState
from storage.database import Session
from storage.queue import REMOTE_QUEUE
from storage.repository import attempts, routes
from workers.leases import Held

LOCAL_FAILURES: Final = (RenderFailed, OutOfMemory, ModelUnavailable, DeviceLost)  #: of the device, not of the request


def end_badly(
    session: Session, held: Held, error: FluxfarmError, problem: Problem, *, local: bool, max_attempts: int
) -> JobState | None:
    """Close the attempt in the given transaction and say where the job stands; None: it was lost before.

    A moderated or refused job, or one whose paid call has an unknown outcome, is taken to nobody else. Any other
    failure goes to the next candidate at once; when none is left, the one that failed is tried again with backoff.
    """
    claim = held.claim
    plan = held.plan or claim.route
    goes_on = plan is not None and plan.wish.may_fall_back
    if isinstance(error, BudgetExceeded):
        return attempts.stop(session, claim, problem)
    if local and isinstance(error, LOCAL_FAILURES) and plan is not None and goes_on and plan.may_leave:
        return attempts.pass_on(session, claim, problem, REMOTE_QUEUE)
    if isinstance(error, ProviderError):
        asked = "" if plan is None or plan.choice is None else plan.choice
        if error.retryable and plan is not None and goes_on and plan.others(asked):
            return attempts.pass_on(session, claim, problem, REMOTE_QUEUE)
        if isinstance(error, ProviderAccount) and not (plan is not None and goes_on and plan.may_still_take_it(asked)):
            return attempts.fail(session, claim, problem, max_attempts=0)  # until somebody looks, it would be the same
        failures = max(routes.failures(session, claim.uuid).values(), default=0)
        max_attempts = claim.attempt + 1 if failures + 1 < max_attempts else 0
    return attempts.fail(session, claim, problem, max_attempts=max_attempts)
