"""OpenAI's batches: a file of calls becomes jobs of the bulk lane; the results are written when they are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from fastapi import Response

from api.airecords import ai_record, links
from api.auth import allowed
from api.bodies import parse_json
from api.dialects import openai_errors
from api.dialects.openai import ImagesOrder, read_edit, read_generation
from api.dialects.openai_replies import ImageData, images_reply
from api.farm import Farm
from api.order import Inline, Linked, Uploaded
from api.routing import HealthBoard, Surroundings, look_around, survey
from api.submit import dispatch
from fluxfarm.catalog import find_model
from fluxfarm.errors import BadRequest, FluxfarmError, InvalidField, InvalidReference, NotFound
from fluxfarm.jobs import JobState, Lane
from fluxfarm.problems import end_of
from fluxfarm.routing import Wish
from fluxfarm.scopes import Scope
from fluxfarm.sizes import Size
from storage.batch_records import Batch
from storage.database import Session
from storage.keys import random_id
from storage.objects import reference_key
from storage.pictures import sanitise
from storage.records import Job, Reference
from storage.repository import batches, copied_jobs, references, tenants
from storage.repository.batches import NewLine
from storage.repository.jobs import NewJob
from storage.repository.tenants import Caller

READERS: Final = {"/v1/images/generations": read_generation, "/v1/images/edits": read_edit}
MAX_LINES: Final = 50_000  #: OpenAI's own limit
SHOWN: Final = 100  #: mistakes of a refused file that are told
PAGE: Final = 500  #: lines that one query reads
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
    ways = _Ways(farm, key, look_around(farm))
    made = [] if mistakes else [_line(ways, batch, call) for call in calls]
    batch.errors = mistakes[:SHOWN] or None
    with farm.database.transaction() as session:
        allowed(tenants.authenticate(session, secret), Scope.RENDER)  # again: the key may have been revoked meanwhile
        session.add_all([row for _, _, kept in made for row in kept])
        session.flush()
        queues = copied_jobs.copy_many(session, [job for job, _, _ in made if job is not None])
        batches.create(session, batch, [line for _, line, _ in made])
        told = answer(session, batch)
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
    """How each model is routed; looked up once for all lines."""

    farm: Farm
    key: Caller
    health: HealthBoard
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


def _line(ways: _Ways, batch: Batch, call: _Call) -> tuple[NewJob | None, NewLine, list[Reference]]:
    """The job of a call, or its refusal, and the pictures that came with it."""
    try:
        asked = READERS[batch.endpoint](call.body, find_model(ways.farm.settings.models[0].slug).slug)
        if asked.stream:
            raise InvalidField("stream has no meaning in a batch.", param="stream")
        kept, places = _pictures(ways.farm, ways.key.tenant_id, asked)
        job = _job(ways, batch, asked, places)
    except FluxfarmError as error:
        if error.status >= 500:  # noqa: PLR2004 - a part of the farm is down: the whole call is tried again
            raise
        told = openai_errors.error_reply(error, "")
        refusal = {"status": told.status, "body": told.content}
        return None, NewLine(call.n, call.custom_id, None, refusal), []
    return job, NewLine(call.n, call.custom_id, job.uuid, None), kept


def _pictures(farm: Farm, tenant_id: UUID, asked: ImagesOrder) -> tuple[list[Reference], list[tuple[str, Size]]]:
    """New references that the call brings, and the key and size of each picture in its order."""
    images = asked.order.images
    named = {image.id for image in images if isinstance(image, Uploaded)}
    with farm.database.transaction() as session:
        rows = references.find(session, tenant_id, named)
    kept: list[Reference] = []
    places: list[tuple[str, Size]] = []
    for index, image in enumerate(images):
        if isinstance(image, Uploaded):
            row = rows.get(image.id)
            if row is None:
                raise InvalidReference(f"There is no reference {image.id!r}.", param=f"images.{index}")
        else:
            row = _kept(farm, tenant_id, image)
            kept.append(row)
        places.append((row.object_key, Size(row.width, row.height)))
    return kept, places


def _kept(farm: Farm, tenant_id: UUID, image: Inline | Linked) -> Reference:
    picture = sanitise(image.body if isinstance(image, Inline) else farm.fetch(image.url))
    key = reference_key(tenant_id)
    farm.store.put(key, picture.png, "image/png")
    return Reference(
        id=random_id("ref_"),
        tenant_id=tenant_id,
        object_key=key,
        width=picture.width,
        height=picture.height,
        size_bytes=len(picture.png),
        sha256=picture.sha256,
    )


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


def results(farm: Farm, batch: Batch, *, failed: bool) -> Iterator[bytes]:
    """The lines of the output file, or of the error file; the links in them are made now."""
    after = -1
    while True:
        with farm.database.transaction() as session:
            page = batches.lines(session, batch.id, after=after, limit=PAGE)
        for line, job in page:
            told = _result(farm, line, job)
            if told is not None and (told["response"]["status_code"] != 200) == failed:  # noqa: PLR2004
                yield json.dumps({"id": f"{batch.id}_{line.n}", "custom_id": line.custom_id, **told}).encode() + b"\n"
        if len(page) < PAGE:
            return
        after = page[-1][0].n


def _result(farm: Farm, line: NewLine, job: Job | None) -> dict[str, Any] | None:
    if line.refusal is not None:
        return _response(line.refusal["status"], "", line.refusal["body"])
    if job is None:
        gone = openai_errors.error_reply(NotFound("The job was erased."), "")
        return _response(gone.status, "", gone.content)
    if job.status is JobState.SUCCESS:
        pictures = [ImageData(url=url) for url in links(farm, job)]
        body = images_reply(job, ai_record(farm, job), pictures).model_dump(mode="json", by_alias=True)
        return _response(200, str(job.uuid), body)
    error = end_of(job.uuid, job.status, job.problem)
    if error is None:
        return None  # not over yet
    told = openai_errors.error_reply(error, "")
    return _response(told.status, str(job.uuid), told.content)


def _response(status: int, request_id: str, body: Any) -> dict[str, Any]:
    return {"response": {"status_code": status, "request_id": request_id, "body": body}, "error": None}
