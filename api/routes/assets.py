"""The link that never dies: it leads to a fresh temporary one each time."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response

from api.auth import Secret, allowed
from api.errors import problems
from api.farm import FarmPart
from api.outcome import check_kept
from fluxfarm.errors import NotFound
from fluxfarm.scopes import Scope
from storage.presenting import presigned
from storage.repository import jobs, tenants

router = APIRouter(prefix="/v1/assets", tags=["assets"])


@router.get(
    "/{uuid}/{n}",
    operation_id="openAsset",
    status_code=302,
    responses={
        302: {
            "description": "A temporary link to the picture",
            "headers": {"Location": {"schema": {"type": "string", "format": "uri"}}},
        },
        **problems(401, 403, 404, 410),
    },
)
def open_asset(farm: FarmPart, secret: Secret, uuid: UUID, n: Annotated[int, Path(ge=0, le=1000)]) -> Response:
    """Go to image n of a job."""
    with farm.database.transaction() as session:
        key = allowed(tenants.authenticate(session, secret), Scope.READ)
        job = check_kept(jobs.read(session, key.tenant_id, uuid))
    image = next((image for image in job.images if image.n == n), None)
    if image is None:
        raise NotFound(f"Job {uuid} has no image {n}.")
    return Response(status_code=302, headers={"Location": presigned(farm.store, farm.settings, image)})
