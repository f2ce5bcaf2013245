"""OpenAI's batches: a file of calls becomes jobs of the bulk lane."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from fastapi import Response

from api.auth import allowed
from api.batch_pictures import BatchPictures, gather, too_many
from api.bodies import parse_json
from api.dialects import openai_errors
from api.dialects.openai import ImagesOrder, read_edit, read_generation
from api.farm import Farm
from api.outside_pictures import forget, keeping
from api.routing import HealthBoard, Surroundings, look_around, survey
from api.submit import dispatch
from fluxfarm.catalog import find_model
from fluxfarm.errors import BadRequest, FluxfarmError, InvalidField
from fluxfarm.jobs import Lane
from fluxfarm.routing import Wish
from fluxfarm.scopes import Scope
from fluxfarm.sizes import Size
from storage.batch_records import Batch
from storage.database import Session
from storage.keys import random_id
from storage.repository import batches, copied_jobs, tenants
from storage.repository.batches import NewLine
from storage.repository.jobs import NewJob
from storage.repository.tenants import Caller

READERS: Final = {"/v1/images/generations": read_generation, "/v1/images/edits": read_edit}
MAX_LINES: Final = 50_000  #: OpenAI's own limit
SHOWN: Final = 100  #: mistakes of a refused file that are told
PREFIX: Final = "batch_"


@dataclass(frozen=True, slots=True)
class _Call:
    n: int
    custom_id: str
    body: dict[str, Any]


def create(
    farm: Farm,
    secret: str,
    answer: Callable[[Session, Batch], Response],
    *,
    endpoint: str,
    input_file_id: str,
    window: str,
    notes: dict[str, str],
) -> Response:
    """Make a batch of a file: all its jobs, and the answer, in one transaction.

    A file that is no list of calls makes a batch that has failed, with the lines at fault; a call that cannot be done
    becomes a line of the error file, and the others are rendered.
    """
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.RENDER)
        file = batches.read_file(session, key.tenant_id, input_file_id, with_body=True)
        body = file.body
    now = datetime.now(UTC)
    batch = Batch(
        id=random_id(PREFIX),
        tenant_id=key.tenant_id,
        endpoint=endpoint,
        input_file_id=input_file_id,
        completion_window=window,
        notes=notes,
        errors=None,
        expires_at=now + timedelta(hours=24),
        cancelled_at=None,
    )
    calls, mistakes = _calls(body, endpoint)
    asked = [] if mistakes else [_asked(farm, endpoint, call) for call in calls]
    orders = [one for one in asked if isinstance(one, ImagesOrder)]
    if (mistake := too_many(orders)) is not None:
        mistakes.append(mistake)
    batch.errors = mistakes[:SHOWN] or None
    with keeping(farm, key.tenant_id) as keeper:
        made: list[tuple[NewJob | None, NewLine]] = []
        if not mistakes:
            ways = _Ways(farm, key, look_around(farm), gather(farm, orders, keeper))
            made = [_line(ways, batch, call, one) for call, one in zip(calls, asked, strict=True)]
        jobs = [job for job, _ in made if job is not None]
        used = {key for job in jobs for key in job.request.references}
        with farm.database.transaction() as session:
            allowed(tenants.authenticate(session, secret), Scope.RENDER)  # again: it may be revoked by now
            session.add_all([row for row in keeper.rows if row.object_key in used])
            session.flush()
            queues = copied_jobs.copy_many(session, jobs)
            batches.create(session, batch, [line for _, line in made])
            told = answer(session, batch)
    forget(farm, [row for row in keeper.rows if row.object_key not in used])  # of lines that were refused
    for queue in queues:
        dispatch(farm, queue)
    return told


def _calls(body: bytes, endpoint: str) -> tuple[list[_Call], list[dict[str, Any]]]:
    """The calls of a file, and what is wrong with its lines."""
    found: list[_Call] = []
    mistakes: list[dict[str, Any]] = []
    seen: set[str] = set()
    for number, raw in enumerate(body.split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            call = _call(number, raw, endpoint, seen)
        except BadRequest as error:
            mistakes.append({"code": error.code, "message": error.message, "param": error.param, "line": number})
            continue
        found.append(call)
    if not found and not mistakes:
        mistakes.append({"code": "empty_file", "message": "The file has no calls.", "param": None, "line": None})
    if len(found) > MAX_LINES:
        message = f"The file has {len(found):,} calls; at most {MAX_LINES:,} are taken."
        mistakes.append({"code": "too_many_requests", "message": message, "param": None, "line": None})
    return found, mistakes


def _call(number: int, raw: bytes, endpoint: str, seen: set[str]) -> _Call:
    line = parse_json(raw)
    custom_id, body = line.get("custom_id"), line.get("body")
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= 512:  # noqa: PLR2004
        raise InvalidField("custom_id must be a text of 1 to 512 characters.", param="custom_id")
    if custom_id in seen:
        raise InvalidField(f"custom_id {custom_id[:100]!r} stands twice.", param="custom_id")
    if line.get("method") != "POST" or line.get("url") != endpoint:
        raise InvalidField(f"method must be POST, and url the batch's endpoint, {endpoint}.", param="url")
    if not isinstance(body, dict):
        raise InvalidField("body must be an object.", param="body")
    seen.add(custom_id)
    return _Call(number, custom_id, body)


@dataclass(frozen=True, slots=True)
class _Ways:
    """How each model is routed, and what each picture is; looked up once for all lines."""

    farm: Farm
    key: Caller
    health: HealthBoard
    pictures: BatchPictures
    known: dict[tuple[str, Wish], Surroundings] = field(default_factory=dict)

    def around(self, model: str, wish: Wish) -> Surroundings:
        """What is known for a model.

        Raises:
            LicenceForbidden, ModelForbidden: the tenant may not render it.
        """
        found = self.known.get((model, wish))
        if found is None:
            with self.farm.database.transaction() as session:
                key = self.key
                found = survey(self.farm, session, key.tenant_id, model, wish, self.health, key.permit)
            self.known[model, wish] = found
        return found


def _asked(farm: Farm, endpoint: str, call: _Call) -> ImagesOrder | FluxfarmError:
    """What a call asks for, or why it is refused."""
    try:
        asked = READERS[endpoint](call.body, find_model(farm.settings.models[0].slug).slug)
        if asked.stream:
            raise InvalidField("stream has no meaning in a batch.", param="stream")
        if asked.as_base64:
            raise InvalidField(
                "The results of a batch hold links; response_format can be url.", param="response_format"
            )
    except FluxfarmError as error:
        return error
    return asked


def _line(ways: _Ways, batch: Batch, call: _Call, asked: ImagesOrder | FluxfarmError) -> tuple[NewJob | None, NewLine]:
    """The job of a call, or its refusal."""
    try:
        if isinstance(asked, FluxfarmError):
            raise asked
        job = _job(ways, batch, asked, ways.pictures.places(asked))
    except FluxfarmError as error:
        if error.status >= 500:  # noqa: PLR2004 - a part of the farm is down: the whole call is tried again
            raise
        told = openai_errors.error_reply(error, "")
        return None, NewLine(call.n, call.custom_id, None, {"status": told.status, "body": told.content})
    return job, NewLine(call.n, call.custom_id, job.uuid, None)


def _job(ways: _Ways, batch: Batch, asked: ImagesOrder, places: list[tuple[str, Size]]) -> NewJob:
    order = asked.order
    request = order.with_references([place for place, _ in places], places[0][1] if places else None)
    wish = order.routing
    way = ways.around(request.model, wish).choose(
        request, [size for _, size in places], wish, deadline=batch.expires_at
    )
    return NewJob(
        uuid=uuid4(),
        tenant_id=ways.key.tenant_id,
        request=request,
        prompt_object=order.prompt_object,
        queue=way.queue,
        route=way.plan,
        price=way.price,
        provider=wish.provider,
        lane=Lane.BULK,
        campaign=batch.id,
        tags=("batch",),
        deadline=batch.expires_at,
    )
