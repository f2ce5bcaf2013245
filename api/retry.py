"""Failed and canceled jobs, tried again as new jobs; each job keeps references of its own, so they are copied."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID, uuid4

import structlog

from api.auth import allowed
from api.farm import Farm
from api.idempotency import Guard, released_on_failure
from api.routing import look_around, route_again
from api.submit import ACCEPTED, OUTSIDE, Accepted, all_or_nothing, dispatch, erase_objects
from fluxfarm.errors import DatabaseUnavailable, Forbidden, Gone, NoRoute, NotFound, ReferenceGone
from fluxfarm.licences import Permit
from fluxfarm.scopes import Scope
from storage.objects import CONTENT_TYPES, ObjectStore, job_prefix, object_key
from storage.records import Job
from storage.repository import idempotency, jobs, retries, tenants
from storage.repository.jobs import Filter, NewJob

COPYING: Final = 20.0  #: seconds that one bulk retry copies references; the rest is left to the next call

log = structlog.get_logger()


@dataclass(slots=True)
class Bulk:
    """What a bulk retry came to; ``next_before`` is the place where the next one starts, None at the end."""

    jobs: list[UUID] = field(default_factory=list)
    skipped: list[tuple[UUID, str]] = field(default_factory=list)  #: with the code of the error
    next_before: int | None = None


def retry(farm: Farm, secret: str, uuid: UUID, guard: Guard | None) -> Accepted:
    """Make a new job of a failed or canceled one; when this returns, it is committed.

    Raises:
        NotFound: no such job of the tenant.
        Conflict: its state does not allow it, or it was retried before.
        ReferenceGone: a picture that it needs was deleted.
        Gone: its prompt was.
        NoRoute: nobody here renders its model any more.
        LicenceForbidden, ModelForbidden: the tenant may not render it any more.
        IdempotencyKeyReused, IdempotencyInFlight: see the guard.
    """
    new = uuid4()
    health = look_around(farm)
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.RENDER)
        call = None if guard is None else guard.call(key.tenant_id, new)
        if (first := idempotency.take(session, call)) is not None:
            return Accepted(first.job, first.status_code)
        old = retries.lock_one(session, key.tenant_id, uuid)
        route = route_again(farm, session, old, health, key.permit)
        job = None
        if not old.render_request.references:
            job = jobs.create(session, retries.again(old, new, route.queue, (), route.plan, route.price))
            idempotency.finish(session, call, status_code=ACCEPTED, ttl=farm.settings.idempotency_ttl)
    if job is None:
        with released_on_failure(farm, call), all_or_nothing(farm, key.tenant_id, new):
            references = carry_over(farm.store, old, new)
            with farm.database.transaction() as session:
                allowed(tenants.authenticate(session, secret), Scope.RENDER)  # again: it may be revoked by now
                old = retries.lock_one(session, key.tenant_id, uuid)
                job = jobs.create(session, retries.again(old, new, route.queue, references, route.plan, route.price))
                idempotency.finish(session, call, status_code=ACCEPTED, ttl=farm.settings.idempotency_ttl)
    dispatch(farm, job.queue)
    return Accepted(job)


def carry_over(store: ObjectStore, old: Job, new: UUID) -> list[str]:
    """The references of the new job: uploaded ones as they are, the old job's own ones copied to the new one.

    Raises:
        ReferenceGone: one was deleted.
    """
    own = job_prefix(old.tenant_id, old.uuid)
    kept: list[str] = []
    for index, key in enumerate(old.render_request.references):
        extension = key.rpartition(".")[2]
        copy = object_key(old.tenant_id, new, OUTSIDE, index, extension) if key.startswith(own) else key
        body = _body(store, key) if copy != key else None
        if body is None and (copy != key or store.stat(key) is None):
            message = f"Reference {index} of job {old.uuid} was deleted; post the job anew with another picture."
            raise ReferenceGone(message)
        if body is not None:
            store.put(copy, body, CONTENT_TYPES[extension])
        kept.append(copy)
    return kept


def _body(store: ObjectStore, key: str) -> bytes | None:
    try:
        return store.get(key)
    except NotFound:
        return None


def retry_many(
    farm: Farm, secret: str, wanted: Filter, *, before: int | None, limit: int, scope: Scope = Scope.RENDER
) -> Bulk:
    """Make new jobs of those that fit, in one transaction, each old job once; jobs that cannot be retried are told."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), scope)
        found = retries.candidates(session, key.tenant_id, wanted, before=before, limit=limit + 1)
    bulk = Bulk()
    with _leftovers_erased(farm, bulk) as planned:
        looked_at = _plan(farm, key.permit, found[:limit], planned, bulk)
        with farm.database.transaction() as session:
            allowed(tenants.authenticate(session, secret), scope)  # again: it may be revoked by now
            free = retries.lock_many(session, key.tenant_id, [new.retry_of for new in planned if new.retry_of])
            made = [new for new in reversed(planned) if new.retry_of in free]
            jobs.create_many(session, made)
        bulk.jobs = [new.uuid for new in made]
    if looked_at < len(found):
        bulk.next_before = found[looked_at - 1].seq
    for queue in {new.queue for new in made}:
        dispatch(farm, queue)
    return bulk


def _plan(farm: Farm, permit: Permit, found: list[Job], planned: list[NewJob], bulk: Bulk) -> int:
    """Fill ``planned`` until the time for copying is over; how many jobs were looked at, one at least."""
    end, health = time.monotonic() + COPYING, look_around(farm)
    for number, old in enumerate(found):
        if number and time.monotonic() >= end:
            return number
        new = uuid4()
        try:
            with farm.database.transaction() as session:
                route = route_again(farm, session, old, health, permit)
            with all_or_nothing(farm, old.tenant_id, new) if old.render_request.references else nullcontext():
                references = carry_over(farm.store, old, new)
                planned.append(retries.again(old, new, route.queue, references, route.plan, route.price))
        except (ReferenceGone, NoRoute, Forbidden, Gone) as error:
            bulk.skipped.append((old.uuid, error.code))
    return len(found)


@contextmanager
def _leftovers_erased(farm: Farm, bulk: Bulk) -> Iterator[list[NewJob]]:
    """Takes the copies of jobs away again that were not stored in the end, unless nobody knows whether they were."""
    planned: list[NewJob] = []
    try:
        yield planned
    except BaseException as error:
        if isinstance(error, DatabaseUnavailable) and error.may_be_done:
            log.warning("objects_left", jobs=[str(new.uuid) for new in planned if new.request.references])
        else:
            _erase(farm, planned)
        raise
    stored = set(bulk.jobs)
    _erase(farm, [new for new in planned if new.uuid not in stored])


def _erase(farm: Farm, planned: list[NewJob]) -> None:
    for new in planned:
        if new.request.references:
            erase_objects(farm, new.tenant_id, new.uuid)
