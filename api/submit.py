"""The one way in: whatever dialect a call speaks, its order becomes a job here, or nothing at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from uuid import UUID, uuid4

import structlog
from anyio import to_thread
from fastapi.concurrency import run_in_threadpool

from api.airecords import job_url
from api.auth import allowed, note_use
from api.farm import Farm
from api.idempotency import REPLAYED, Guard, released_on_failure
from api.order import Inline, Order, Source, Uploaded
from api.outside_pictures import is_left_to_the_scheduler
from api.routing import HealthBoard, Route, check_wish, is_late, look_around, survey
from api.targets import FIELD, look_up, new_secret, read_target
from fluxfarm.errors import BadRequest, FluxfarmError, InvalidReference, LoraNotFound, Unavailable
from fluxfarm.licences import Permit
from fluxfarm.loras import find_lora
from fluxfarm.request import RenderRequest
from fluxfarm.scopes import Scope
from fluxfarm.sizes import Size
from storage.database import NO_SESSION, Session
from storage.objects import attempt_prefix, job_prefix, object_key
from storage.pictures import Picture, sanitise
from storage.records import Job
from storage.repository import endpoints, explain, idempotency, jobs, ledger, references, retention, tenants, workers
from storage.repository.idempotency import First, Taken
from storage.repository.tenants import Caller

ACCEPTED = 202
POLL_AFTER = "1"  #: seconds, as a header
SMALL = 16_384  #: bytes of a body that is read on the event loop, in under a millisecond
OUTSIDE = 0  #: the attempt number under which a job's own references are kept; renders count from 1

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that is stored; ``replayed`` is the status of the first reply when its ``Idempotency-Key`` came again."""

    job: Job
    replayed: int | None = None


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What would have happened: the job as it would have been stored, its price in USD, and when it would be done."""

    job: Job
    price: Decimal
    eta: datetime | None


@dataclass(frozen=True, slots=True)
class Entry:
    """An order that may become a job of this tenant; ``uploaded`` are the references that it names by id.

    ``target`` is who is told of its end, ``webhook_id`` the endpoint if it exists already.
    """

    uuid: UUID
    tenant_id: UUID
    order: Order
    health: HealthBoard
    permit: Permit
    uploaded: dict[str, tuple[str, Size]]
    call: Taken | None
    target: str | None
    webhook_id: str | None

    @property
    def has_new_url(self) -> bool:
        """Whether its webhook must be looked at and stored first."""
        return self.target is not None and self.webhook_id is None

    @property
    def needs_a_look(self) -> bool:
        """Whether something outside must be looked at before it is stored."""
        return self.order.has_outside_pictures or self.has_new_url

    def new_job(self, request: RenderRequest, route: Route) -> jobs.NewJob:
        """The row that it becomes."""
        order = self.order
        return jobs.NewJob(
            uuid=self.uuid,
            tenant_id=self.tenant_id,
            request=request,
            prompt_object=order.prompt_object,
            queue=route.queue,
            lane=order.lane,
            provider=order.routing.provider,
            route=route.plan,
            price=route.price,
            tags=order.tags,
            deadline=order.deadline,
            external_id=order.external_id,
            webhook_id=self.webhook_id,
        )


#: what was made of a call so far: its order, and its job unless something outside must be looked at first; or a reply
Looked = tuple[Entry, jobs.NewJob | None] | Accepted


async def submit(
    farm: Farm, secret: str, read_order: Callable[[], Order], guard: Guard | None = None, *, size: int | None = None
) -> Accepted:
    """Store the order as a QUEUED job and send for a worker; when this returns, the job is committed.

    What needs nothing but its own row is read and stored on the event loop, unless its body, of ``size`` bytes, would
    hold the others up there. The rest is looked at in a thread. Pictures from outside are fetched and redrawn, and the
    host of a new webhook is looked up, between two transactions, in threads of their own, so that slow servers of
    strangers cost the other callers nothing. With a ``guard`` the same call again gives the first job.

    Raises:
        FluxfarmError: any leaf but those of RenderError; then nothing is stored.
    """
    key = allowed(await farm.entrance.caller(secret), Scope.RENDER)
    if key.use_is_due:
        await run_in_threadpool(note_use, farm, key)
    look = partial(_look, farm, key, read_order, guard, uuid4())
    looked = look(NO_SESSION, {}) if size is not None and size <= SMALL else None
    if looked is None:
        looked = await run_in_threadpool(_look_around, farm, look)
    if isinstance(looked, Accepted):
        return looked
    entry, new = looked
    if new is None:
        pictures = await to_thread.run_sync(_collect, farm, entry, limiter=farm.pictures)
        return Accepted(await run_in_threadpool(_enter_with_pictures, farm, secret, entry, pictures))
    if not new.stands_alone:
        return await run_in_threadpool(_enter_with_money, farm, entry)
    return await _enter(farm, new, entry.call)


async def rehearse(farm: Farm, secret: str, read_order: Callable[[], Order]) -> Rehearsal:
    """What ``submit`` would do with the order; everything is checked and priced, and nothing is stored.

    Raises:
        FluxfarmError: as ``submit``, a budget's refusal among them.
    """
    return await to_thread.run_sync(_rehearse, farm, secret, read_order, limiter=farm.pictures)


def _rehearse(farm: Farm, secret: str, read_order: Callable[[], Order]) -> Rehearsal:
    health = look_around(farm)
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.RENDER)
        entry = _entry(farm, session, key, read_order(), health, None, uuid4())
    pictures = _collect(farm, entry)
    sizes = {index: ("", Size(picture.width, picture.height)) for index, picture in pictures.items()}
    found: list[Rehearsal] = []
    with suppress(_Rehearsed), farm.database.transaction() as session:
        job = store(farm, session, entry, sizes)
        able = workers.slots(session, job.queue)
        end = explain.expected_end(session, job, explain.standing(session, job), able)
        found.append(Rehearsal(job, ledger.reserved(session, job.uuid), end))
        raise _Rehearsed
    return found[0]


class _Rehearsed(Exception):
    """Rolls a rehearsal back; never leaves this module."""


def dispatch(farm: Farm, queue: str) -> None:
    """The fast path to the broker; the job is safe already, and the scheduler sends what this cannot."""
    try:
        farm.dispatcher.dispatch(queue)
    except Unavailable as error:
        log.warning("dispatch_postponed", queue=queue, error=error.code)


def accepted_headers(farm: Farm, accepted: Accepted) -> dict[str, str]:
    """Where the job is read, when to look, and whether the call was a replay."""
    headers = {"Location": job_url(farm, accepted.job)}
    if not accepted.job.status.is_final:
        headers["Retry-After"] = POLL_AFTER
    if accepted.replayed is not None:
        headers[REPLAYED] = "true"
    return headers


def _look(
    farm: Farm,
    key: Caller,
    read_order: Callable[[], Order],
    guard: Guard | None,
    uuid: UUID,
    session: Session,
    health: HealthBoard,
) -> Looked | None:
    """Check everything that can be without a look outside; with ``NO_SESSION`` None, when the database must be asked.

    Raises:
        FluxfarmError: as ``submit``, for a call that did not come before.
    """
    call = None if guard is None else guard.call(key.tenant_id, uuid)
    try:
        order = read_order()
        if session is NO_SESSION and _asks(farm, order):
            return None
        entry = _entry(farm, session, key, order, health, call, uuid)
        new = None if entry.needs_a_look else routed(farm, session, entry, {})[0]
    except FluxfarmError:
        # A replay first: a deadline that has passed meanwhile must not make it look like a mistake.
        if call is not None and session is NO_SESSION:
            return None
        if (first := idempotency.look(session, call)) is not None:
            return Accepted(first.job, first.status_code)
        raise
    return entry, new


def _asks(farm: Farm, order: Order) -> bool:
    """Whether anything but the caller must be known of it: its pictures, its webhook, or who else may render it."""
    return bool(order.images) or order.webhook is not None or (farm.remotes.enabled and order.routing.may_leave)


def _look_around(farm: Farm, look: Callable[[Session, HealthBoard], Looked | None]) -> Looked:
    """The same with the database, in a thread; the key of what must be looked at outside is taken."""
    health = look_around(farm)
    with farm.database.statements() as session:
        looked = look(session, health)
        assert looked is not None
        if not isinstance(looked, Accepted) and looked[1] is None:
            first = idempotency.take(session, looked[0].call)
            return looked if first is None else Accepted(first.job, first.status_code)
        return looked


async def _enter(farm: Farm, new: jobs.NewJob, call: Taken | None) -> Accepted:
    """Store a job that stands alone."""
    made = await farm.entrance.store(new, call, status_code=ACCEPTED, ttl=farm.settings.idempotency_ttl)
    if isinstance(made, First):
        return Accepted(made.job, made.status_code)
    if farm.dispatcher.has_room(made.window):
        await run_in_threadpool(dispatch, farm, new.queue)
    return Accepted(made.job)


def _enter_with_money(farm: Farm, entry: Entry) -> Accepted:
    """Store a job that has a price or may be taken elsewhere: key, row and budget in one transaction."""
    with farm.database.transaction() as session:
        if (first := idempotency.take(session, entry.call)) is not None:
            return Accepted(first.job, first.status_code)
        job = store(farm, session, entry, {})
        idempotency.finish(session, entry.call, status_code=ACCEPTED, ttl=farm.settings.idempotency_ttl)
    dispatch(farm, job.queue)
    return Accepted(job)


def _entry(
    farm: Farm, session: Session, key: Caller, order: Order, health: HealthBoard, call: Taken | None, uuid: UUID
) -> Entry:
    target = read_target(farm, order.webhook)
    check_wish(farm, order.routing)
    _check_loras(farm, order)
    named = {image.id for image in order.images if isinstance(image, Uploaded)}
    rows = references.find(session, key.tenant_id, named).values()
    entry = Entry(
        uuid=uuid,
        tenant_id=key.tenant_id,
        order=order,
        health=health,
        permit=key.permit,
        call=call,
        target=target,
        webhook_id=None if target is None else endpoints.resolve(session, key.tenant_id, target, order.telling),
        uploaded={row.id: (row.object_key, Size(row.width, row.height)) for row in rows},
    )
    _check_uploaded(entry)
    return entry


def _check_loras(farm: Farm, order: Order) -> None:
    for index, lora in enumerate(order.request.loras):
        try:
            find_lora(farm.settings.loras, lora.name)
        except LoraNotFound as error:
            error.param = f"{order.lora_field}.{index}"
            raise


def _check_uploaded(entry: Entry) -> None:
    for index, image in enumerate(entry.order.images):
        if isinstance(image, Uploaded) and image.id not in entry.uploaded:
            message = f"There is no reference {image.id!r}; POST /v1/references makes one."
            raise InvalidReference(message, param=entry.order.image_field(index))


def _collect(farm: Farm, entry: Entry) -> dict[int, Picture]:
    """The pictures from outside, redrawn, by their place in the order, and a look at the webhook; nothing is stored."""
    found: dict[int, Picture] = {}
    with released_on_failure(farm, entry.call):
        if entry.target is not None and entry.has_new_url:
            look_up(farm, entry.target, FIELD)
        for index, image in enumerate(entry.order.images):
            if not isinstance(image, Uploaded):
                try:
                    found[index] = _picture(farm, image)
                except BadRequest as error:
                    error.param = entry.order.image_field(index)
                    raise
    return found


def _picture(farm: Farm, image: Source) -> Picture:
    assert not isinstance(image, Uploaded)
    return sanitise(image.body if isinstance(image, Inline) else farm.fetch(image.url))


def _enter_with_pictures(farm: Farm, secret: str, entry: Entry, pictures: dict[int, Picture]) -> Job:
    keys = {index: object_key(entry.tenant_id, entry.uuid, OUTSIDE, index, "png") for index in pictures}
    sizes = {index: (keys[index], Size(picture.width, picture.height)) for index, picture in pictures.items()}
    with released_on_failure(farm, entry.call), all_or_nothing(farm, entry.tenant_id, entry.uuid):
        for index, picture in pictures.items():
            farm.store.put(keys[index], picture.png, "image/png")
        with farm.database.transaction() as session:
            allowed(tenants.authenticate(session, secret), Scope.RENDER)  # again: it may be revoked by now
            if entry.target is not None:
                sealed = farm.sealer.seal(new_secret())
                webhook_id = endpoints.resolve_or_create(
                    session, entry.tenant_id, entry.target, sealed, entry.order.telling
                )
                entry = replace(entry, webhook_id=webhook_id)
            job = store(farm, session, entry, sizes)
            idempotency.finish(session, entry.call, status_code=ACCEPTED, ttl=farm.settings.idempotency_ttl)
    dispatch(farm, job.queue)
    return job


def store(farm: Farm, session: Session, entry: Entry, outside: dict[int, tuple[str, Size]]) -> Job:
    """Route the order, store its job and set its price aside, in the caller's transaction.

    ``outside`` are the keys and sizes of the pictures that came with the call, by their place in it.
    """
    new, choose = routed(farm, session, entry, outside)
    job = jobs.create(session, new)
    if (seconds := is_late(session, job)) is not None:
        route = choose(seconds_to_start=seconds)
        jobs.reroute(session, job, route.queue, route.plan, route.price)
    return job


def routed(
    farm: Farm, session: Session, entry: Entry, outside: dict[int, tuple[str, Size]]
) -> tuple[jobs.NewJob, Callable[..., Route]]:
    """The job that an order becomes, and the choice of its route, which may be made again."""
    order = entry.order
    places = [
        entry.uploaded[image.id] if isinstance(image, Uploaded) else outside[index]
        for index, image in enumerate(order.images)
    ]
    request = order.with_references([key for key, _ in places], places[0][1] if places else None)
    around = survey(farm, session, entry.tenant_id, request.model, order.routing, entry.health, entry.permit)
    around.check_fields(order.own_fields, request.model, order.routing)
    choose = partial(around.choose, request, [size for _, size in places], order.routing, deadline=order.deadline)
    return entry.new_job(request, choose()), choose


@contextmanager
def all_or_nothing(farm: Farm, tenant_id: UUID, uuid: UUID) -> Iterator[None]:
    """Takes the pictures of a job away again when the job was not stored, or leaves that to the scheduler."""
    with farm.database.transaction() as session:
        retention.foresee(session, tenant_id, attempt_prefix(tenant_id, uuid, OUTSIDE))
    try:
        yield
    except BaseException as error:
        if is_left_to_the_scheduler(error):
            log.warning("objects_left", job=str(uuid), error=error.code)
        else:
            erase_objects(farm, tenant_id, uuid)
        raise


def erase_objects(farm: Farm, tenant_id: UUID, uuid: UUID) -> None:
    """Delete what was put for a job that was not stored."""
    try:
        farm.store.delete_prefix(job_prefix(tenant_id, uuid))
    except FluxfarmError as error:
        log.warning("objects_left", job=str(uuid), error=error.code)
