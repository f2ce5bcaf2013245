"""Thousands of new jobs at once: rows by COPY, JSON as its text, one reservation for them all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain
from typing import Any

from sqlalchemy.orm import Session

from fluxfarm.jobs import JobState
from fluxfarm.routing import RoutePlan
from storage.repository import copying
from storage.repository.jobs import NewJob, plain, reserve_all


def copy_many(session: Session, new: Iterable[NewJob]) -> set[str]:
    """Store jobs without external ids, that are no retries, as QUEUED in their order; gives their queues.

    One statement and no objects, all or nothing. Jobs that share a ``RoutePlan`` object share its JSON, too.

    Raises:
        BudgetExceeded: a budget has no room for them all.
    """
    priced: list[NewJob] = []
    queues: set[str] = set()
    routes: dict[int, tuple[RoutePlan, str]] = {}  # by identity; the plan is held, so that no other one gets its id

    def row(one: NewJob) -> dict[str, Any]:
        queues.add(one.queue)
        if one.price:
            priced.append(one)
        if one.route is None:
            return _copied(one, None)
        if id(one.route) not in routes:
            routes[id(one.route)] = one.route, one.route.model_dump_json(by_alias=True)
        return _copied(one, routes[id(one.route)][1])

    rows = map(row, new)
    first = next(rows, None)
    if first is not None:
        copying.copy_rows(session, "jobs", list(first), (list(one.values()) for one in chain([first], rows)))
    reserve_all(session, priced)
    return queues


def _copied(new: NewJob, route: str | None) -> dict[str, Any]:
    """The row as COPY takes it: JSON and enums as their texts."""
    return plain(new) | {
        "type": new.request.type.value,
        "status": JobState.QUEUED.value,
        "request": new.request.model_dump_json(),
        "prompt_object": json.dumps(new.prompt_object),
        "route": route,
    }
