"""The processes that render now."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.auth import Secret, allowed
from api.errors import problems
from api.farm import FarmPart
from api.replies import reply
from fluxfarm.airecord import Moment
from fluxfarm.scopes import Scope
from storage.repository import tenants, workers

router = APIRouter(prefix="/v1/workers", tags=["workers"])


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class WorkerReply(_Part):
    """A worker, as it last said of itself."""

    id: UUID
    name: str
    provider: str
    models: list[str]
    queues: list[str]
    device: str
    slots: int
    state: str = Field(description="starting, loading, ready or stopping.")
    warm: list[str] = Field(description="Models that are on the device now; a job of another one waits for a load.")
    loading: str | None = Field(description="The model that is being loaded.")
    loaded_at: Moment | None = Field(description="When that should be done, by its last load there; null: not known.")
    memory_used: int | None = Field(description="Bytes of the GPU in use; without a GPU, of the process.")
    memory_total: int | None = Field(description="Bytes of the GPU; null: it has none.")
    utilisation: float | None = Field(description="Share of the time in which the GPU works; null: it does not tell.")
    started_at: Moment
    heartbeat_at: Moment


class WorkerPage(_Part):
    """Those with a heartbeat within 30 seconds, the oldest first."""

    data: list[WorkerReply]


@router.get(
    "",
    operation_id="listWorkers",
    responses={200: {"model": WorkerPage}, **problems(401, 403)},
)
def list_workers(farm: FarmPart, secret: Secret) -> Response:
    """List the live workers."""
    with farm.database.transaction() as session:
        allowed(tenants.authenticate(session, secret), Scope.READ)
        found = workers.alive(session)
    return reply(WorkerPage(data=[WorkerReply.model_validate(worker, from_attributes=True) for worker in found]))
