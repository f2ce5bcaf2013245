"""``POST /v1/verify``: whether a picture came from this farm, and whether it was changed since."""

from __future__ import annotations

import hashlib
import io
from typing import Any, Final
from uuid import UUID

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from PIL import Image as Pillow
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.auth import Secret, allowed, check_caller
from api.bodies import FIELD, read_upload
from api.errors import problems
from api.farm import Farm, FarmPart
from api.replies import reply
from fluxfarm.errors import InvalidReference
from fluxfarm.scopes import Scope
from storage.pictures import sanitise
from storage.provenance import Findings, Verdict
from storage.repository import images, tenants
from storage.watermark import FOUND

FORM: Final[dict[str, Any]] = {
    "type": "object",
    "required": [FIELD],
    "additionalProperties": False,
    "properties": {FIELD: {"type": "string", "format": "binary", "description": "PNG, JPEG, WebP, AVIF or GIF."}},
}

router = APIRouter(tags=["provenance"])


class VerifyReply(BaseModel):
    """What the file's signed manifest and its pixels say, and the job that made it when it is one of the caller's."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    verdict: Verdict = Field(
        description="made_here: signed by this farm and unchanged. signed_elsewhere: intact, under another authority. "
        "changed: its bytes no longer match its manifest. unsigned: no manifest."
    )
    generator: str | None
    model: str | None
    source_type: str | None
    signed_by: str | None
    problems: list[str]
    watermark: bool | None = Field(
        description="Whether the pixels carry this farm's invisible mark. null: not looked for, as it is off or the "
        "file is no PNG, JPEG or WebP from 64 pixels to 16 megapixels."
    )
    job: UUID | None = Field(description="The job whose stored picture is this very file.")


@router.post(
    "/v1/verify",
    operation_id="verifyImage",
    responses={200: {"model": VerifyReply}, **problems(400, 401, 403, 413, 415)},
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM}}}},
)
async def verify_image(farm: FarmPart, secret: Secret, request: Request) -> Response:
    """Say whether a picture came from this farm and was changed; nothing of it is kept."""
    await check_caller(farm, secret, Scope.READ)
    body = await read_upload(request, farm.settings.upload_limit)
    found = await to_thread.run_sync(farm.provenance.inspect, body, limiter=farm.pictures)
    marked = await to_thread.run_sync(_is_marked, farm, body, limiter=farm.pictures)
    job = await run_in_threadpool(_made_by, farm, secret, hashlib.sha256(body).hexdigest())
    return reply(_worded(found, marked, job))


def _worded(found: Findings, marked: bool | None, job: UUID | None) -> VerifyReply:
    return VerifyReply(
        verdict=found.verdict,
        generator=found.generator,
        model=found.model,
        source_type=found.source_type,
        signed_by=found.signed_by,
        problems=list(found.problems),
        watermark=marked,
        job=job,
    )


def _is_marked(farm: Farm, body: bytes) -> bool | None:
    if farm.watermark is None:
        return None
    try:
        picture = sanitise(body)
    except InvalidReference:
        return None
    with Pillow.open(io.BytesIO(picture.png)) as image:
        return farm.watermark.score(image) >= FOUND


def _made_by(farm: Farm, secret: str, sha256: str) -> UUID | None:
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
        return images.made_by(session, key.tenant_id, sha256)
