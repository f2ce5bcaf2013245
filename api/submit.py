"""The one way in: whatever dialect a call speaks, its order becomes a job here, or nothing at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

import structlog
from anyio import to_thread
from fastapi.concurrency import run_in_threadpool

from api.auth import allowed
from api.farm import Farm
from api.order import Inline, Order, Source, Uploaded
from fluxfarm.catalog import find_model
from fluxfarm.errors import BadRequest, FluxfarmError, InvalidReference, NoRoute, Unavailable
from fluxfarm.request import RenderRequest
from fluxfarm.settings import Settings
from fluxfarm.sizes import Size
from storage.objects import job_prefix, object_key
from storage.pictures import Picture, sanitise
from storage.queue import local_queue
from storage.records import Job
from storage.repository import jobs, references, tenants

OUTSIDE = 0  #: the attempt number under which a job's own references are kept; renders count from 1

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Entry:
    """An order that may become a job of this tenant; ``uploaded`` are the references that it names by id."""

    uuid: UUID
    tenant_id: UUID
    order: Order
    queue: str
    uploaded: dict[str, tuple[str, Size]]

    def new_job(self, request: RenderRequest) -> jobs.NewJob:
        order = self.order
        return jobs.NewJob(
            uuid=self.uuid,
            tenant_id=self.tenant_id,
            request=request,
            prompt_object=order.prompt_object,
            queue=self.queue,
            lane=order.lane,
            provider=order.provider,
            tags=order.tags,
            deadline=order.deadline,
        )


async def submit(farm: Farm, secret: str, read_order: Callable[[], Order]) -> Job:
    """Store the order as a QUEUED job and send for a worker; when this returns, the job is committed.

    Pictures from outside are fetched and redrawn between two transactions, in threads of their own, so that slow
    servers of strangers cost the other callers nothing.

    Raises:
        FluxfarmError: any leaf but those of RenderError; then nothing is stored.
    """
    entered = await run_in_threadpool(_enter, farm, secret, read_order)
    if isinstance(entered, Job):
        return entered
    pictures = await to_thread.run_sync(_collect, farm, entered.order, limiter=farm.pictures)
    return await run_in_threadpool(_enter_with_pictures, farm, secret, entered, pictures)


def route(settings: Settings, order: Order) -> str:
    """The queue of those who can render the order.

    Raises:
        NoRoute: nobody here ever can; the message says why and what to do.
    """
    slug = order.request.model
    if any(source.slug in (slug, *find_model(slug).aliases) for source in settings.models):
        return local_queue(slug)
    if not find_model(slug).is_local:
        raise NoRoute(f"{slug} is offered by remote providers only, and none is configured here.", param="model")
    hub_id = find_model(slug).hub_id or slug
    message = (
        f"This farm has no weights of {slug}; add '{slug}=/folder' or '{slug}={hub_id}@<commit>' to FLUXFARM_MODELS. "
        f"It renders: {', '.join(source.slug for source in settings.models)}."
    )
    raise NoRoute(message, param="model")


def dispatch(farm: Farm, queue: str) -> None:
    """The fast path to the broker; the job is safe already, and the scheduler sends what this cannot."""
    try:
        farm.dispatcher.dispatch(queue)
    except Unavailable as error:
        log.warning("dispatch_postponed", queue=queue, error=error.code)


def _enter(farm: Farm, secret: str, read_order: Callable[[], Order]) -> _Entry | Job:
    """Check everything, and store the job unless pictures must be fetched or redrawn first."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret))
        order = read_order()
        queue = route(farm.settings, order)
        named = {image.id for image in order.images if isinstance(image, Uploaded)}
        rows = references.find(session, key.tenant_id, named).values()
        entry = _Entry(
            uuid=uuid4(),
            tenant_id=key.tenant_id,
            order=order,
            queue=queue,
            uploaded={row.id: (row.object_key, Size(row.width, row.height)) for row in rows},
        )
        _check_uploaded(entry)
        if order.has_outside_pictures:
            return entry
        job = jobs.create(session, entry.new_job(_request(entry, {})))
    dispatch(farm, queue)
    return job


def _check_uploaded(entry: _Entry) -> None:
    for index, image in enumerate(entry.order.images):
        if isinstance(image, Uploaded) and image.id not in entry.uploaded:
            message = f"There is no reference {image.id!r}; POST /v1/references makes one."
            raise InvalidReference(message, param=f"promptObject.images.{index}")


def _collect(farm: Farm, order: Order) -> dict[int, Picture]:
    """The pictures from outside, redrawn, by their place in the order; nothing is stored yet."""
    found: dict[int, Picture] = {}
    for index, image in enumerate(order.images):
        if not isinstance(image, Uploaded):
            try:
                found[index] = _picture(farm, image)
            except BadRequest as error:
                error.param = f"promptObject.images.{index}"
                raise
    return found


def _picture(farm: Farm, image: Source) -> Picture:
    assert not isinstance(image, Uploaded)
    return sanitise(image.body if isinstance(image, Inline) else farm.fetch(image.url))


def _enter_with_pictures(farm: Farm, secret: str, entry: _Entry, pictures: dict[int, Picture]) -> Job:
    keys = {index: object_key(entry.tenant_id, entry.uuid, OUTSIDE, index, "png") for index in pictures}
    sizes = {index: (keys[index], Size(picture.width, picture.height)) for index, picture in pictures.items()}
    request = _request(entry, sizes)
    with _all_or_nothing(farm, entry):
        for index, picture in pictures.items():
            farm.store.put(keys[index], picture.png, "image/png")
        with farm.database.transaction() as session:
            allowed(tenants.authenticate(session, secret))  # again: the key may have been revoked meanwhile
            job = jobs.create(session, entry.new_job(request))
    dispatch(farm, entry.queue)
    return job


def _request(entry: _Entry, outside: dict[int, tuple[str, Size]]) -> RenderRequest:
    places = [
        entry.uploaded[image.id] if isinstance(image, Uploaded) else outside[index]
        for index, image in enumerate(entry.order.images)
    ]
    return entry.order.with_references([key for key, _ in places], places[0][1] if places else None)


@contextmanager
def _all_or_nothing(farm: Farm, entry: _Entry) -> Iterator[None]:
    try:
        yield
    except BaseException:
        try:
            farm.store.delete_prefix(job_prefix(entry.tenant_id, entry.uuid))
        except FluxfarmError as error:
            log.warning("objects_left", job=str(entry.uuid), error=error.code)
        raise
