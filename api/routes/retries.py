"""The way out of the dead letters: one job tried again, or all that fit."""

from __future__ import annotations

from typing import Any, Final, Literal
from uuid import UUID

from anyio import to_thread
from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.airecords import CURSOR, JobReply, ai_record, make_cursor, read_cursor
from api.auth import Secret
from api.bodies import JsonBody, parse_json
from api.creation import Making
from api.errors import problems
from api.farm import FarmPart
from api.idempotency import Guard, IdempotencyKey, digest
from api.replies import reply
from api.retry import retry, retry_many
from api.strict import Strict, read
from api.submit import ACCEPTED, accepted_headers
from fluxfarm.jobs import JobState
from fluxfarm.scopes import Scope
from storage.repository.jobs import Filter

MOST: Final = 1000

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "all": {"summary": "Whatever failed", "value": {}},
    "some": {
        "summary": "What a lost worker left in one campaign",
        "value": {"status": "FAILED", "error": "worker_lost", "campaign": "spring", "limit": 100},
    },
}


class RetryMany(Strict):
    """Which jobs to try again; a job that was retried before is never among them."""

    status: Literal["FAILED", "CANCELED"] = Field("FAILED", description="The state that they ended in.")
    error: str | None = Field(None, max_length=64, description="Only those with this error code.")
    campaign: str | None = Field(None, max_length=200, description="Only those of this campaign.")
    tag: str | None = Field(None, max_length=64, description="Only those with this tag.")
    limit: int = Field(MOST, ge=1, le=MOST, description="At most so many, the newest ones.")
    cursor: str | None = Field(
        None, max_length=64, description="`nextCursor` of the reply before.", json_schema_extra={"pattern": CURSOR}
    )


class Skipped(BaseModel):
    """A job that cannot be tried again as it stands."""

    job: UUID
    code: str = Field(description="Why: `reference_gone`, `no_route`, `licence_forbidden` or `model_forbidden`.")


class RetriedMany(BaseModel):
    """What came of it."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    retried: int
    jobs: list[UUID] = Field(description="The new jobs, in the order of the old ones.")
    skipped: list[Skipped]
    next_cursor: str | None = Field(description="Give it as `cursor` to go on; null: nothing more fits.")


@router.post(
    "/retry",
    operation_id="retryJobs",
    status_code=202,
    responses={202: {"model": RetriedMany}, **problems(400, 401, 403, 413, 415)},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/RetryMany"}, "examples": EXAMPLES}
            },
        }
    },
)
async def retry_jobs(farm: FarmPart, secret: Secret, creation: Making, body: JsonBody) -> Response:
    """Try failed jobs again, each as a new job that names the old one in `retryOf`.

    All new jobs are stored in one transaction. The call can be repeated without harm: a job is retried once.
    """
    await run_in_threadpool(creation.enter, Scope.RENDER, body)
    asked = read(RetryMany, parse_json(body))
    wanted = Filter(status=JobState(asked.status), error=asked.error, campaign=asked.campaign, tag=asked.tag)
    before = read_cursor(asked.cursor)
    bulk = await to_thread.run_sync(
        lambda: retry_many(farm, secret, wanted, before=before, limit=asked.limit), limiter=farm.pictures
    )
    skipped = [Skipped(job=uuid, code=code) for uuid, code in bulk.skipped]
    told = RetriedMany(
        retried=len(bulk.jobs), jobs=bulk.jobs, skipped=skipped, next_cursor=make_cursor(bulk.next_before)
    )
    return await run_in_threadpool(creation.close, reply(told, ACCEPTED))


_HEADERS: Final = {
    "Location": {"description": "Where the new job is read.", "schema": {"type": "string"}},
}


@router.post(
    "/{uuid}/retry",
    operation_id="retryJob",
    status_code=202,
    responses={
        202: {"model": JobReply, "description": "The new job", "headers": _HEADERS},
        **problems(400, 401, 403, 404, 409, 410, 422),
    },
)
def retry_job(farm: FarmPart, secret: Secret, uuid: UUID, idempotency_key: IdempotencyKey) -> Response:
    """Try a FAILED or CANCELED job again, as a new job with the same seeds that names the old one in `retryOf`.

    A job is retried once; a second time is a 409 that names the retry, which can be retried in turn.
    """
    guard = Guard.of(idempotency_key, lambda: digest(f"/v1/jobs/{uuid}/retry"))
    accepted = retry(farm, secret, uuid, guard)
    headers = accepted_headers(farm, accepted)
    return reply(JobReply(ai_record=ai_record(farm, accepted.job)), accepted.replayed or ACCEPTED, headers)
