"""The results of a batch, in the form of OpenAI's output and error files; written when they are read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from api.airecords import ai_record, links
from api.dialects import openai_errors
from api.dialects.openai_replies import ImageData, images_reply
from api.farm import Farm
from api.outcome import gone_of
from fluxfarm.errors import FluxfarmError, NotFound
from fluxfarm.jobs import JobState
from fluxfarm.problems import end_of
from storage.batch_records import Batch
from storage.records import Job
from storage.repository import batches
from storage.repository.batches import NewLine

PAGE: Final = 500  #: lines that one query reads


def results(farm: Farm, batch: Batch, *, failed: bool) -> Iterator[bytes]:
    """The lines of the output file, or of the error file; the links in them are made now."""
    after = -1
    while True:
        with farm.database.transaction() as session:
            page = batches.lines(session, batch, after=after, limit=PAGE)
        for line, job in page:
            told = _result(farm, line, job)
            is_made = job is not None and job.status is JobState.SUCCESS  # also if its pictures were erased since
            if told is not None and is_made != failed:
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
    error: FluxfarmError | None = gone_of(job)
    if job.status is JobState.SUCCESS and error is None:
        pictures = [ImageData(url=url) for url in links(farm, job)]
        body = images_reply(job, ai_record(farm, job), pictures).model_dump(mode="json", by_alias=True)
        return _response(200, str(job.uuid), body)
    error = error or end_of(job.uuid, job.status, job.problem)
    if error is None:
        return None  # not over yet
    told = openai_errors.error_reply(error, "")
    return _response(told.status, str(job.uuid), told.content)


def _response(status: int, request_id: str, body: Any) -> dict[str, Any]:
    return {"response": {"status_code": status, "request_id": request_id, "body": body}, "error": None}
